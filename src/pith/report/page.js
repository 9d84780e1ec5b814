"use strict";
// The page reads well without any of this: sorting, choosing a family and highlighting come on top.
(() => {
  const table = document.querySelector("table.results");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const reference = rows[0];
  const status = document.getElementById("status");

  const valueOf = (row, column) => {
    if (column === 0) return row.dataset.row;
    const cell = row.cells[column];
    const number = Number.parseFloat(cell.dataset.value);
    return Number.isNaN(number) ? cell.dataset.value ? Infinity : cell.textContent.trim() : number;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b
      : typeof a === typeof b ? a.localeCompare(b, undefined, { numeric: true }) : typeof a === "number" ? -1 : 1;

  const sort = (heading, column) => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const others = rows.slice(1).map((row, place) => ({ row, place, value: valueOf(row, column) }));
    others.sort((a, b) => (down ? -1 : 1) * compare(a.value, b.value) || a.place - b.place);
    body.append(reference, ...others.map(({ row }) => row));
    status.textContent = `Sorted by ${heading.dataset.title}, ${down ? "largest" : "smallest"} first; dense stays on top.`;
  };

  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(heading, column));
  });

  const marks = [...document.querySelectorAll("svg [data-row]")];
  let gone = new Set();
  const show = (kept) => {
    for (const mark of marks) mark.classList.toggle("away", gone.has(mark.dataset.row) || !kept(mark.dataset.row));
  };

  const filter = document.getElementById("filter");
  if (filter) {
    filter.hidden = false;
    const buttons = [...filter.querySelectorAll("button")];
    for (const button of buttons) {
      button.addEventListener("click", () => {
        const family = button.dataset.family;
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
        gone = new Set();
        for (const row of rows) {
          row.hidden = row !== reference && family !== "" && !row.dataset.families.split(" ").includes(family);
          if (row.hidden) gone.add(row.dataset.row);
        }
        show(() => true);
        const shown = rows.filter((row) => !row.hidden).length - 1;
        status.textContent = `${shown} of ${rows.length - 1} recipes shown.`;
      });
    }
  }

  for (const entry of document.querySelectorAll(".legend li")) {
    const members = new Set(rows.filter((row) => row.dataset.series === entry.dataset.series).map((row) => row.dataset.row));
    entry.addEventListener("pointerenter", () => show((label) => members.has(label)));
    entry.addEventListener("pointerleave", () => show(() => true));
  }

  const folded = [];
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details:not([open])")) folded.push(part);
    for (const part of folded) part.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const part of folded.splice(0)) part.open = false;
  });
})();
