// The session on the server's own pages. Everything is tilekeep.js's; here is what only these pages do.
'use strict';
(() => {
  const TK = window.Tilekeep;
  const isMap = document.body.classList.contains('map');

  // The front page has nothing that a log-in could bring back in place; the map page has.
  const session = (TK.here = TK.session({ login: isMap ? 'auto' : false }));

  for (const button of document.querySelectorAll('[data-sign-out]')) {
    button.addEventListener('click', async () => {
      button.disabled = true;
      session.removeEventListener('ended', signedOutElsewhere);
      try {
        await session.end();
      } finally {
        location.assign('/login');
      }
    });
  }

  // The view is in the address, and the log-in carries it along.
  const signedOutElsewhere = () => {
    location.assign(`/login?next=${encodeURIComponent(location.pathname)}${location.hash}`);
  };
  session.addEventListener('ended', signedOutElsewhere);

  // Somebody else's page: their name, their tilesets.
  const shown = document.querySelector('.account-text')?.textContent;
  session.addEventListener('restored', ({ detail }) => { if (shown && detail.sub !== shown) location.reload(); });
})();
