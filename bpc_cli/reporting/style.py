"""How a report looks, and how its table is sorted."""

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #bbb; }
img { max-width: 100%; height: auto; }
figure { margin: 0; }
.wide { overflow-x: auto; }
.wide > img { min-width: 40rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid #ddd;
         vertical-align: top; }
td.number { text-align: right; white-space: nowrap; }
td.best { font-weight: 700; }
td .interval { color: #555; font-weight: 400; font-size: .8rem; }
th button { font: inherit; font-weight: 700; border: 0; background: none; padding: 0;
            cursor: pointer; text-align: left; }
th button::after { content: " \\2195"; color: #888; }
th[aria-sort=ascending] button::after { content: " \\2191"; color: #000; }
th[aria-sort=descending] button::after { content: " \\2193"; color: #000; }
.note { border: 1px solid #555; border-left-width: .4rem; padding: .5rem .8rem; margin: 1rem 0; }
.grids { display: flex; flex-wrap: wrap; gap: 1rem; }
.grids figure { width: min(14rem, 45%); }
figcaption { font-size: .8rem; overflow-wrap: anywhere; }
code, .reason { overflow-wrap: anywhere; }
"""

SORT = """
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
"""
