"use strict";
// Tables whose rows a column's name sorts; the teacher's row stays last.
(() => {
  const valueOf = (row, place) => {
    const text = row.cells[place] ? row.cells[place].textContent.trim() : "";
    const number = parseFloat(text.replace(/,/g, ""));
    return /^[-+]?[\d.]/.test(text) && !Number.isNaN(number) ? number : text;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b
      : typeof a === typeof b ? String(a).localeCompare(String(b)) : typeof a === "number" ? -1 : 1;
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      if (head.classList.contains("bar")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending" ||
          (!head.hasAttribute("aria-sort") && head.classList.contains("n"));
        heads.forEach((one) => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows].filter((row) => !row.classList.contains("teacher"));
        const last = [...table.tBodies[0].rows].filter((row) => row.classList.contains("teacher"));
        rows.sort((a, b) => (down ? -1 : 1) * compare(valueOf(a, place), valueOf(b, place)));
        table.tBodies[0].replaceChildren(...rows, ...last);
      });
    });
  });
})();
// The test items.
(() => {
  const block = document.getElementById("data");
  if (!block) return;
  const data = JSON.parse(block.textContent);
  const search = document.getElementById("search");
  const filter = document.getElementById("filter");
  const list = document.getElementById("list");
  const more = document.getElementById("more");
  const found = document.getElementById("found");
  const PAGE = 25;
  let shown = PAGE;

  // Texts go in as text, never as HTML: a teacher's answer may hold anything.
  const element = (tag, name, text) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined && text !== null) made.textContent = text;
    return made;
  };

  // What a method was not asked is neither right nor wrong.
  const right = (item, place) => item.said[place] !== null && item.said[place].right;
  const wrong = (item, place) => item.said[place] !== null && !item.said[place].right;
  let every = data.shown;
  let filters = [];
  const choices = () => {
    const kept = filters.length ? filters[Number(filter.value)][0] : "";
    filters = [["all items", () => true]];
    if (every.length > 1) {
      const some = (item, one) => every.some((place) => one(item, place));
      filters.push(["methods disagree", (item) => some(item, right) && some(item, wrong)]);
      filters.push(["all wrong", (item) => some(item, wrong) && !some(item, right)]);
    }
    every.forEach((place) => filters.push([`${data.methods[place]} wrong`, (item) => wrong(item, place)]));
    every.forEach((one) =>
      every.forEach((two) => {
        if (one !== two && every.length <= 4)
          filters.push([`${data.methods[one]} right, ${data.methods[two]} wrong`,
            (item) => right(item, one) && wrong(item, two)]);
      }));
    if (data.items.some((item) => item.teacher)) {
      filters.push(["teacher wrong", (item) => item.teacher && !item.teacher.right]);
    }
    filters.push(["no answer", (item) => every.some((place) => item.said[place] !== null && item.said[place].answer === null)]);
    filter.replaceChildren(...filters.map(([name], place) => {
      const option = element("option", "", name);
      option.value = String(place);
      return option;
    }));
    filter.value = String(Math.max(0, filters.findIndex(([name]) => name === kept)));
  };
  choices();

  const haystack = (item) =>
    [item.id, item.input, item.gold, ...item.said.flatMap((one) => (one ? [one.answer, one.rationale] : [])),
      ...(item.teacher ? [item.teacher.answer, item.teacher.rationale] : [])].join("\n").toLowerCase();
  const texts = data.items.map(haystack);

  const voice = (who, said) => {
    const box = element("div", said === null ? "" : said.right ? "yes" : "no");
    box.append(element("div", "who", said !== null && said.confidence !== undefined
      ? `${who} (confidence ${said.confidence})` : who));
    if (said === null) {
      box.append(element("div", "why", "not asked"));
      return box;
    }
    box.append(element("div", "answer", said.answer === null ? "no answer" : said.answer));
    if (said.reason) box.append(element("div", "who", said.reason));
    if (said.rationale) box.append(element("div", "why", said.rationale));
    if (said.hits) {
      const read = element("details");
      read.append(element("summary", "", `${said.hits.length} passage${said.hits.length > 1 ? "s" : ""}`));
      said.hits.forEach((hit) => read.append(element("div", "why", `${hit.title || hit.id}: ${hit.text}`)));
      box.append(read);
    }
    return box;
  };

  const draw = (item) => {
    const box = element("article", "item");
    box.append(element("div", "meta", `${item.id}  ·  gold: ${item.gold === null ? "none" : item.gold}`));
    box.append(element("div", "input", item.input));
    if (item.choices.length) box.append(element("div", "meta", `choices: ${item.choices.join(", ")}`));
    const said = element("div", "said");
    if (item.teacher) said.append(voice("the teacher", item.teacher));
    every.forEach((place) => said.append(voice(data.methods[place], item.said[place])));
    box.append(said);
    return box;
  };

  const show = () => {
    const wanted = search.value.trim().toLowerCase();
    const keep = filters[Number(filter.value)][1];
    const kept = data.items.filter((item, place) => keep(item) && texts[place].includes(wanted));
    list.replaceChildren(...kept.slice(0, shown).map(draw));
    found.textContent = `${kept.length} of ${data.items.length}`;
    more.hidden = kept.length <= shown;
  };
  const again = () => { shown = PAGE; show(); };
  const picker = document.getElementById("methods");
  if (picker) {
    const boxes = data.methods.map((name, place) => {
      const label = element("label", "", "");
      const box = element("input");
      box.type = "checkbox";
      box.checked = every.includes(place);
      box.addEventListener("change", () => {
        every = boxes.flatMap((one, at) => (one.checked ? [at] : []));
        choices();
        again();
      });
      label.append(box, ` ${name}`);
      picker.append(label);
      return box;
    });
  }
  search.addEventListener("input", again);
  filter.addEventListener("change", again);
  more.addEventListener("click", () => { shown += PAGE; show(); });
  show();
})();
