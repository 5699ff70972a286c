// Sort a report's table by a column: numbers as numbers, words as words.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement, row = heading.parentElement;
    const column = [...row.children].indexOf(heading);
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of row.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = row.closest("table").tBodies[0];
    const value = tr => tr.children[column].dataset.value;
    const sorted = [...body.rows].sort((a, b) => {
      const x = value(a), y = value(b), p = Number(x), q = Number(y);
      const order = x !== "" && y !== "" && !isNaN(p) && !isNaN(q) ? p - q : x < y ? -1 : +(x > y);
      return down ? -order : order;
    });
    body.append(...sorted);
  });
}
