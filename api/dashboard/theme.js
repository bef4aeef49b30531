// Light, dark, or as the system has it. A classic script in the head: it runs before the
// first paint, so that nothing flashes.

(() => {
  const NAME = "promptmill-theme";
  const root = document.documentElement;
  const order = ["auto", "light", "dark"];
  const stored = () => {
    try { return localStorage.getItem(NAME); } catch { return null; }
  };
  const show = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  window.theme = {
    now: () => root.dataset.theme ?? "auto",
    next() {
      const theme = order[(order.indexOf(this.now()) + 1) % order.length];
      try {
        if (theme === "auto") localStorage.removeItem(NAME);
        else localStorage.setItem(NAME, theme);
      } catch { /* a browser that keeps nothing still shows it */ }
      show(theme);
      return theme;
    },
  };
  show(stored());
})();
