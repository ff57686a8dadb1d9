// The front page: copying, and the snippets' tabs.
'use strict';
(() => {
  const copy = async (text, button) => {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without a secure context there is no clipboard API; the old way still works.
      const field = document.createElement('textarea');
      field.value = text;
      field.className = 'visually-hidden';
      document.body.append(field);
      field.select();
      done = document.execCommand('copy');
      field.remove();
      button.focus();
    }
    button.classList.toggle('copied', done);
    if (!button.dataset.label) button.dataset.label = button.textContent;
    const hasText = button.dataset.label.trim() !== '';
    if (hasText) button.textContent = done ? 'Copied' : 'Select and copy by hand';
    say(done ? 'Copied' : 'Copying is not allowed here');
    setTimeout(() => {
      button.classList.remove('copied');
      if (hasText) button.textContent = button.dataset.label;
    }, 1600);
  };

  const live = document.createElement('div');
  live.className = 'visually-hidden';
  live.setAttribute('role', 'status');
  document.body.append(live);
  const say = (text) => { live.textContent = text; };

  document.addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (!button) return;
    if (button.dataset.copy) copy(button.dataset.copy, button);
    if (button.dataset.copyFrom) copy(document.getElementById(button.dataset.copyFrom).textContent, button);
  });

  // Choosing a library in one card chooses it in all: whoever uses OpenLayers uses it everywhere.
  const groups = [...document.querySelectorAll('[data-tabs]')];
  const choose = (name) => {
    for (const group of groups) {
      for (const tab of group.querySelectorAll('[role=tab]')) {
        const chosen = tab.dataset.tab === name;
        tab.setAttribute('aria-selected', String(chosen));
        tab.tabIndex = chosen ? 0 : -1;
        document.getElementById(tab.getAttribute('aria-controls')).hidden = !chosen;
      }
    }
    try { localStorage.setItem('tilekeep.snippet', name); } catch { /* private mode */ }
  };
  for (const group of groups) {
    const tabs = [...group.querySelectorAll('[role=tab]')];
    group.addEventListener('click', (event) => {
      const tab = event.target.closest('[role=tab]');
      if (!tab) return;
      const top = tab.getBoundingClientRect().top;
      choose(tab.dataset.tab);
      // Other cards change height with it; the tab that was pressed should stay under the finger.
      scrollBy(0, tab.getBoundingClientRect().top - top);
    });
    group.addEventListener('keydown', (event) => {
      const at = tabs.indexOf(event.target);
      if (at < 0) return;
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const tab = tabs[(to + tabs.length) % tabs.length];
      choose(tab.dataset.tab);
      tab.focus();
    });
  }
  let remembered = null;
  try { remembered = localStorage.getItem('tilekeep.snippet'); } catch { /* private mode */ }
  if (remembered && groups.length && groups[0].querySelector(`[data-tab="${CSS.escape(remembered)}"]`)) choose(remembered);
})();
