// Before anything is painted: light or dark, as the user chose it, else as the system has it. The choice is no secret and lives in a cookie.
(() => {
  const chosen = (document.cookie.match(/(?:^|; )eyrie-theme=(light|dark)/) || [])[1];
  const query = window.matchMedia("(prefers-color-scheme: dark)");
  const scheme = () => chosen || (query.matches ? "dark" : "light");
  const keep = (name, value) => { document.cookie = `${name}=${value}; path=/console; max-age=31536000; samesite=lax`; };
  const before = (document.cookie.match(/(?:^|; )eyrie-scheme=(light|dark)/) || [])[1];
  document.documentElement.lang = "en";
  document.documentElement.dataset.theme = scheme();
  keep("eyrie-scheme", scheme());
  if (window.eyrieScheme && window.eyrieScheme !== scheme() && before !== scheme()) location.reload();
  query.addEventListener("change", () => { if (!chosen) { keep("eyrie-scheme", scheme()); location.reload(); } });
  window.eyrieToggleTheme = () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    keep("eyrie-theme", next);
    keep("eyrie-scheme", next);
    location.reload();
  };
})();
