"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
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

  const right = (item, place) => item.said[place] !== null && item.said[place].right;
  const filters = [["all items", () => true]];
  const every = data.methods.map((_, place) => place);
  if (every.length > 1) {
    filters.push(["methods disagree", (item) => new Set(every.map((place) => right(item, place))).size > 1]);
    filters.push(["all wrong", (item) => every.every((place) => !right(item, place))]);
  }
  data.methods.forEach((name, place) => filters.push([`${name} wrong`, (item) => !right(item, place)]));
  data.methods.forEach((name, one) =>
    data.methods.forEach((other, two) => {
      if (one !== two && every.length <= 4)
        filters.push([`${name} right, ${other} wrong`, (item) => right(item, one) && !right(item, two)]);
    }));
  if (data.items.some((item) => item.teacher)) {
    filters.push(["teacher wrong", (item) => item.teacher && !item.teacher.right]);
  }
  filters.push(["no answer", (item) => item.said.some((one) => one !== null && one.answer === null)]);
  filters.forEach(([name], place) => {
    const option = element("option", "", name);
    option.value = String(place);
    filter.append(option);
  });

  const haystack = (item) =>
    [item.id, item.input, item.gold, ...item.said.flatMap((one) => (one ? [one.answer, one.rationale] : [])),
      item.teacher ? item.teacher.rationale : ""].join("\n").toLowerCase();
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
    item.said.forEach((one, place) => said.append(voice(data.methods[place], one)));
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
  search.addEventListener("input", again);
  filter.addEventListener("change", again);
  more.addEventListener("click", () => { shown += PAGE; show(); });
  show();
})();
