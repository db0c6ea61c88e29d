// Light, dark or the system's choice; runs in the head, so that no page flashes in the wrong colours.
(() => {
  "use strict";
  const themes = { auto: "Colours: system", light: "Colours: light", dark: "Colours: dark" };
  const names = Object.keys(themes);
  let theme = "auto";
  // If a file asks for its storage before Chromium's browser process knows the page, it gets an empty storage that keeps nothing while
  // the page is open. Reading the cookies first waits for that process; their content is not used.
  try { void document.cookie; } catch { /* this page may have no cookies */ }
  try { theme = localStorage.getItem("theme") || theme; } catch { /* this browser has no storage for files */ }
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
      try { localStorage.setItem("theme", theme); } catch { /* the choice lasts only while the page is open */ }
      show();
    });
  });
})();
