// A map's view is in the fragment of the address, which no server sees. Carry it through the log-in:
// a redirect keeps the fragment of the address that the form was sent to.
'use strict';
(() => {
  const form = document.getElementById('login-form');
  if (location.hash.length > 1) {
    if (form) form.action += location.hash;
    const oidc = document.getElementById('login-oidc');
    if (oidc && !oidc.hash) oidc.hash = location.hash;
  }
  if (form) {
    form.addEventListener('submit', () => {
      const button = form.querySelector('button[type=submit]');
      // After this turn, so that the form is sent first; and never for ever, for the back button's sake.
      setTimeout(() => { button.disabled = true; });
      setTimeout(() => { button.disabled = false; }, 8000);
    });
    addEventListener('pageshow', () => { form.querySelector('button[type=submit]').disabled = false; });
  }
})();
