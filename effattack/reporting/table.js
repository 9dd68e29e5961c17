"use strict";
// Sorts and filters the tables marked data-sort. The page is whole without it.
for (const table of document.querySelectorAll("table[data-sort]")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const bodies = [...table.tBodies].map((body) => {
    const rows = [...body.rows];
    return { body, title: rows.filter((row) => row.dataset.title !== undefined), rows: rows.filter((row) => row.dataset.title === undefined) };
  });
  const key = (row, column) => {
    const cell = row.cells[column];
    const value = cell?.dataset.value ?? cell?.textContent.trim() ?? "";
    if (value === "nan") return "";
    return value === "" || Number.isNaN(Number(value)) ? value : Number(value);
  };
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");  // empty cells last, either way
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  };
  const sort = (column, direction) => {
    for (const { body, rows } of bodies) {
      const order = direction === "none" ? rows : [...rows].sort((one, other) => {
        const a = key(one, column), b = key(other, column);
        const flip = direction === "descending" && a !== "" && b !== "" ? -1 : 1;
        return flip * compare(a, b);
      });
      body.append(...order);
    }
    heads.forEach((head, index) => {
      if (head.querySelector("button")) head.setAttribute("aria-sort", index === column ? direction : "none");
    });
  };
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" };
      sort(column, next[head.getAttribute("aria-sort")]);
    });
  });

  const all = bodies.flatMap(({ rows }) => rows);
  if (all.length < 4) continue;
  const bar = document.createElement("p"), label = document.createElement("label");
  const field = document.createElement("input"), count = document.createElement("output");
  bar.className = "filter";
  field.type = "search";
  label.append("Filter rows ", field);
  bar.append(label, count, "A click on a heading sorts.");
  (table.closest(".scroll") ?? table).before(bar);
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { title, rows } of bodies) {
      const heading = title.map((row) => row.textContent).join(" ");
      let some = false;
      for (const row of rows) {
        const text = `${heading} ${row.textContent}`.toLowerCase();
        row.hidden = !wanted.every((word) => text.includes(word));
        some ||= !row.hidden;
        shown += !row.hidden;
      }
      for (const row of title) row.hidden = !some;
    }
    count.value = wanted.length ? `${shown} of ${all.length} rows` : "";
  });
}
