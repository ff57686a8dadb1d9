// The session as the pages see it: signing out, noticing the end, renewing in good time.
'use strict';
(() => {
  const TK = (window.Tilekeep = window.Tilekeep || {});

  for (const button of document.querySelectorAll('[data-sign-out]')) {
    button.addEventListener('click', async () => {
      button.disabled = true;
      try {
        await fetch('/session', { method: 'DELETE' });
      } finally {
        location.assign('/login');
      }
    });
  }

  /** What GET /session says, or null when there is no session; undefined when nobody answers. */
  const read = async () => {
    try {
      const response = await fetch('/session', { headers: { Accept: 'application/json' } });
      if (response.ok) return await response.json();
      return response.status === 401 ? null : undefined;
    } catch {
      return undefined;
    }
  };

  /**
   * Watches the session of an open page. `ended` is called once when it is over, `back` when somebody
   * signed in again (in another tab, say). A page in use renews its session shortly before the end.
   */
  TK.watchSession = ({ ended, back }) => {
    let over = false;
    let timer = 0;
    let usedAt = Date.now();
    let checking = null;
    for (const type of ['pointerdown', 'wheel', 'keydown']) {
      addEventListener(type, () => { usedAt = Date.now(); }, { passive: true, capture: true });
    }

    const set = (isOver) => {
      if (isOver === over) return;
      over = isOver;
      (over ? ended : back)();
    };
    const plan = (session) => {
      clearTimeout(timer);
      if (!session || !session.exp) return;
      const left = session.exp * 1000 - Date.now();
      // Renewal a good while before the end; then again at the end, to tell the person. A timer may
      // fire days later than asked, so the check reads the clock again; 2^31 ms is a timer's limit.
      const wait = left > 120e3 ? left - 90e3 : Math.max(1000, left + 500);
      timer = setTimeout(() => check(true), Math.min(wait, 2 ** 31 - 1));
    };
    const check = (mayRenew = false) => {
      checking ??= (async () => {
        let session = await read();
        if (session && mayRenew && session.exp * 1000 - Date.now() < 120e3 && Date.now() - usedAt < 15 * 60e3) {
          const renewed = await fetch('/session/renew', { method: 'POST' }).catch(() => null);
          if (renewed && renewed.ok) session = await read();
        }
        if (session !== undefined) {
          set(session === null);
          plan(session);
        }
        checking = null;
      })();
      return checking;
    };
    document.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'visible') check();
    });
    check();
    return {
      /** A tile failed and nobody can tell why (an <img> has no status): ask. */
      suspect: () => { if (!over) check(); },
      /** A tile answered 401. */
      refused: () => { set(true); },
    };
  };
})();
