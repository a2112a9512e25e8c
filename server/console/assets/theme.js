// Before anything is drawn: the theme that was chosen here, or the system's.
{
  const chosen = localStorage.getItem("trivet-theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const now = localStorage.getItem("trivet-theme") || (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = now;
    dispatchEvent(new Event("themechange"));
  };
  document.documentElement.dataset.theme = chosen || (dark.matches ? "dark" : "light");
  dark.addEventListener("change", apply);
  globalThis.toggleTheme = () => {
    const now = document.documentElement.dataset.theme;
    localStorage.setItem("trivet-theme", now === "dark" ? "light" : "dark");
    apply();
  };
}
