// Light, dark or as the system says; runs in the head, so that no page flashes in the wrong colours.
(() => {
  "use strict";
  const themes = { auto: "Colours: system", light: "Colours: light", dark: "Colours: dark" };
  const names = Object.keys(themes);
  let theme = "auto";
  // Chromium gives a file that asks in its first moments, before the browser has heard of the page, an empty storage that keeps
  // nothing, for as long as the page is open. An answer about cookies comes only after that; what it says is of no interest.
  try { void document.cookie; } catch { /* a page that may have none */ }
  try { theme = localStorage.getItem("theme") || theme; } catch { /* a browser that keeps nothing for files */ }
  const show = () => {
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) { button.textContent = themes[theme]; button.setAttribute("aria-label", themes[theme] + "; press to change"); }
  };
  if (!names.includes(theme)) theme = "auto";
  show();
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      theme = names[(names.indexOf(theme) + 1) % names.length];
      try { localStorage.setItem("theme", theme); } catch { /* then it lasts as long as the page */ }
      show();
    });
  });
})();
