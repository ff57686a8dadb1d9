/** Waits until `check` answers something true, and answers that. */
export const until = async (what, check, { every = 100, within = 30_000 } = {}) => {
  const end = Date.now() + within;
  let last;
  for (;;) {
    last = await check();
    if (last) return last;
    if (Date.now() > end) throw new Error(`Waited ${within / 1000} s in vain until ${what}.`);
    await new Promise((resolve) => { setTimeout(resolve, every); });
  }
};
