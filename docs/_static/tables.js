// Tables of the class "sortable": click on a heading to sort, type into the field to filter.
function sortTable(table, column, heading) {
  const body = table.tBodies[0];
  const up = heading.getAttribute("aria-sort") !== "ascending";
  const text = (row) => row.cells[column].textContent.trim();
  const number = (value) => (value === "" ? NaN : Number(value));
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [text(a), text(b)];
    if (!x || !y) return (x ? 0 : 1) - (y ? 0 : 1); // what was not reported stays below
    const [m, n] = [number(x), number(y)];
    const order = isNaN(m) || isNaN(n) ? x.localeCompare(y) : m - n;
    return up ? order : -order;
  });
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...rows);
}

function filterTable(table, words) {
  const wanted = words.toLowerCase().split(/\s+/);
  for (const row of table.tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !wanted.every((word) => text.includes(word));
  }
}

document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.sortable")) {
    const field = document.createElement("input");
    field.type = "search";
    field.placeholder = "Filter this table";
    field.setAttribute("aria-label", "Filter this table");
    field.className = "filter";
    field.addEventListener("input", () => filterTable(table, field.value));
    (table.closest(".table-wrapper") || table).before(field);
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      heading.tabIndex = 0;
      heading.addEventListener("click", () => sortTable(table, column, heading));
      heading.addEventListener("keydown", (event) => event.key === "Enter" && sortTable(table, column, heading));
    });
  }
});
