// Filters and order of the leaderboard; without a script the page shows all of it. The address holds the filters.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const table = $("leaderboard");
  const filters = ["task", "score", "lab", "method"];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  const asked = new URLSearchParams(location.hash.slice(1));
  const scores = heads.map((head) => head.dataset.score).filter(Boolean);
  const tasks = (score) => scores.filter((one) => one === score).length;
  const first = scores.reduce((best, score) => (tasks(score) > tasks(best) ? score : best), scores[0]);
  if (!asked.has("task") && !asked.has("score")) asked.set("score", first);
  for (const name of filters) $(name).value = asked.get(name) || "";
  for (const name of filters) if ($(name).selectedIndex === -1) $(name).value = "";

  function show() {
    const task = $("task").value, score = $("score").value, lab = $("lab").value;
    const words = $("method").value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = heads.map((head) => !head.dataset.task || ((!task || head.dataset.task === task) && (!score || head.dataset.score === score)));
    let count = 0;
    for (const row of [table.tHead.rows[0], ...rows]) [...row.cells].forEach((cell, place) => { cell.hidden = !shown[place]; });
    for (const row of rows) {
      const numbers = [...row.cells].some((cell) => !cell.hidden && cell.dataset.task && cell.querySelector("a.mean"));
      row.hidden = !numbers || (lab !== "" && row.dataset.lab !== lab) || !words.every((word) => row.dataset.words.includes(word));
      count += !row.hidden;
    }
    $("count").textContent = `${count} of ${rows.length} rows`;
  }

  function changed() {
    const said = new URLSearchParams(filters.map((name) => [name, $(name).value]).filter(([name, value]) => value || name === "score"));
    history.replaceState(null, "", `#${said}`);
    show();
  }

  function sort(head) {
    const place = heads.indexOf(head);
    const numbers = head.dataset.score !== undefined;
    const lower = numbers ? head.querySelector("[data-lower]") !== null : true;
    const again = head.getAttribute("aria-sort") === (lower ? "ascending" : "descending");
    const sign = lower === !again ? 1 : -1;
    const key = (row) => {
      const text = row.cells[place].textContent.trim();
      return numbers ? Number.parseFloat(text) : text;
    };
    rows.sort((one, other) => {
      const [a, b] = [key(one), key(other)];
      if (!numbers) return sign * a.localeCompare(b);
      return Number.isNaN(a) ? (Number.isNaN(b) ? 0 : 1) : Number.isNaN(b) ? -1 : sign * (a - b);
    });
    for (const one of heads) one.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    table.tBodies[0].append(...rows);
  }

  for (const name of filters) $(name).addEventListener("input", changed);
  for (const head of heads) head.querySelector(".sort").addEventListener("click", () => sort(head));
  show();
})();
