// One verdict as a card, and two side by side. Only what a verdict holds is drawn; see `Verdict` for what it means.

import { bar, element, isolated, keyedBar, probability, shown } from "./elements.js";

const SMALL = 0.001; // categories below it share one line of the tree
const WORDS = { allow: "Allow", review: "Review", block: "Block" };

/** The categories, most probable first. */
const ranked = (verdict) => verdict.categories.toSorted((a, b) => b.marginal - a.marginal);
const named = (score) => `${score.code} ${score.name}`;

/** What is decided, in a few words. */
export function summary(verdict) {
  const [first] = ranked(verdict);
  return `${WORDS[verdict.action] ?? "No decision"} by policy ${verdict.policy}: P(unsafe) ${shown(verdict.p_unsafe)}, most probable category ${named(first)} ${shown(first.marginal)}.`;
}

/** The whole verdict on `texts`, the conversation's contents. `limits`: thresholds by code, where they are known. */
export function card(answer, texts, limits) {
  const { verdict } = answer;
  return element(
    "article",
    { class: "card", "aria-label": `Verdict by policy ${verdict.policy}` },
    element("h3", null, "Policy ", isolated(verdict.policy)),
    decision(verdict),
    ...notes(verdict, answer.left_out ?? []),
    element("h4", null, "How the answer begins"),
    ...keyedBar(beginnings(verdict)),
    element("h4", null, "Categories, most probable first"),
    categories(verdict, limits),
    element("h4", null, "Which path carries which mass"),
    ...tree(verdict),
    element("h4", null, "The answer of greedy decoding"),
    element("pre", { class: "greedy", dir: "auto" }, verdict.greedy.text),
    verdict.greedy.complete ? null : element("p", { class: "small soft" }, "Followed only so far: there the guard leaves the grammar, or what the release explores."),
    ...windows(verdict, texts),
    facts(answer),
    element("details", null, element("summary", null, "The verdict as JSON"), element("pre", null, JSON.stringify(verdict, null, 1))),
  );
}

function decision(verdict) {
  const flags = verdict.categories.filter((score) => score.flagged).map(named);
  if (verdict.unsafe_flagged) flags.unshift("the whole answer");
  let said = verdict.flagged ? `flagged: ${flags.join(", ") || "the guard gives no verdict"}` : "nothing is flagged";
  if (verdict.flagged == null) said = "nothing has a threshold under this policy";
  const kind = verdict.action ?? "undecided";
  return element("p", { class: "decision" }, element("span", { class: `action ${kind}` }, WORDS[kind] ?? "No decision"), element("span", { class: "flagged" }, said));
}

function notes(verdict, leftOut) {
  const found = [];
  if (verdict.undecided) found.push("The guard answers something else than a verdict. Small probabilities mean nothing here.");
  if (verdict.windows?.length) found.push("Judged part by part: every number is that of the worst part, so they need not add up.");
  if (leftOut.length) found.push(`Not read: ${leftOut.join("; ")}.`);
  return found.map((text) => element("p", { class: "note" }, text));
}

function beginnings(verdict) {
  const shares = [[verdict.p_safe, "safe", "P(safe)"]];
  if (verdict.p_controversial != null) shares.push([verdict.p_controversial, "between", "P(controversial)"]);
  shares.push([verdict.p_unsafe, "unsafe", "P(unsafe)"]);
  const neither = Math.max(0, 1 - shares.reduce((sum, [share]) => sum + share, 0));
  return [...shares, [neither, "rest", "none of these"]];
}

function categories(verdict, limits) {
  const whole = { name: "the whole answer: P(unsafe)", marginal: verdict.p_unsafe, calibrated: verdict.p_unsafe_calibrated, flagged: verdict.unsafe_flagged };
  const isCalibrated = verdict.calibration != null;
  const row = (score, unexplored) =>
    element(
      "tr",
      { "data-code": score.code ?? "" },
      element("th", { scope: "row" }, score.code ? element("b", null, isolated(score.code), " ") : null, isolated(score.name), meters(score, unexplored, limits.get(score.code ?? ""))),
      element("td", { class: "marginal" }, probability(score.marginal)),
      isCalibrated ? element("td", { class: "calibrated-score" }, score.calibrated == null ? "–" : probability(score.calibrated)) : null,
      element("td", { class: `flag ${score.action ?? (score.flagged ? "block" : "")}` }, outcome(score)),
    );
  const head = ["Category", "Raw", ...(isCalibrated ? ["Calibrated"] : []), "Decision"].map((text) => element("th", { scope: "col" }, text));
  const rows = [...ranked(verdict).map((score) => row(score, verdict.unexplored)), row(whole, 0)];
  return element("div", { class: "wide" }, element("table", { class: "scores" }, element("thead", null, element("tr", null, ...head)), element("tbody", null, ...rows)));
}

function outcome(score) {
  if (score.flagged == null && score.action == null) return "–";
  return score.action === "review" ? "review" : score.flagged ? "flagged" : "not flagged";
}

function meters(score, unexplored, limits) {
  const found = element("div", { class: "meters" }, bar([[score.marginal, "raw"], [Math.min(unexplored, 1 - score.marginal), "unknown"]]));
  if (score.calibrated != null) found.append(bar([[score.calibrated, "calibrated"]]));
  for (const kind of ["review", "threshold"]) {
    if (limits?.[kind] == null) continue;
    const line = element("span", { class: `threshold is-${kind}`, title: `${kind} ${limits[kind]}` });
    line.style.left = `${100 * limits[kind]}%`;
    found.append(line);
  }
  return found;
}

function tree(verdict) {
  const path = new Set(verdict.greedy.labels);
  const branch = (name, mass, kind, isOnPath, children = []) =>
    element(
      "li",
      isOnPath ? { class: "on-path" } : null,
      element("div", { class: "branch" }, element("span", { class: "name" }, isolated(name)), probability(mass), bar([[mass, kind]])),
      children.length ? element("ul", null, ...children) : null,
    );
  const large = ranked(verdict).filter((score) => score.marginal >= SMALL);
  const labels = large.map((score) => {
    const along = path.has(score.code) && score.joint > 0 ? `, on the greedy path with joint probability ${shown(score.joint)}` : "";
    return branch(`names ${named(score)}${along}`, score.marginal, "raw", path.has(score.code));
  });
  const small = verdict.categories.length - large.length;
  if (small) labels.push(element("li", { class: "soft" }, `${small} ${small === 1 ? "category" : "categories"} below ${SMALL} each`));
  const begins = beginnings(verdict).map(([mass, kind, name]) => {
    const isUnsafe = kind === "unsafe";
    const word = { safe: "begins with safe", between: "begins with controversial", unsafe: "begins with unsafe", rest: `begins with ${name}` }[kind];
    return branch(word, mass, kind, isUnsafe && path.size > 0, isUnsafe ? labels : []);
  });
  const within = Math.max(0, verdict.unexplored - verdict.off_grammar);
  const open = branch("of all answers, not followed to their end (unexplored)", verdict.unexplored, "unknown", false, [
    branch("within the grammar", within, "unknown", false),
    branch("off the grammar", verdict.off_grammar, "unknown", false),
  ]);
  return [
    element("ul", { class: "tree" }, ...begins, open),
    element("p", { class: "small soft" }, "All bars have one scale, 0 to 1. A category's is the mass of all answers that name it, at whatever place. Answers may name several, so these overlap. What was not followed to its end may name any category: a true marginal lies between the raw one and the raw one plus unexplored (hatched). ● lies on the greedy path."),
  ];
}

function windows(verdict, texts) {
  const parts = verdict.windows ?? [];
  if (!parts.length) return [];
  const text = element("pre", { class: "parts", dir: "auto", tabindex: "0", "aria-label": "The conversation with the chosen part highlighted" });
  const buttons = parts.map((part, number) => {
    const codes = verdict.categories.filter((score) => score.window === number).map((score) => score.code);
    const worst = codes.length ? `, worst for ${codes.join(", ")}` : "";
    const button = element("button", { type: "button", "aria-pressed": "false" }, `Part ${number + 1}: P(unsafe) `, probability(part.p_unsafe), worst);
    button.addEventListener("click", () => choose(number));
    return button;
  });
  function choose(number) {
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === number)));
    text.replaceChildren(...highlighted(texts, parts[number]));
    const [first] = text.getElementsByTagName("mark");
    if (first) text.scrollTop = Math.max(0, first.offsetTop - text.offsetTop - 20);
  }
  choose(parts.reduce((worst, part, number) => (part.p_unsafe > parts[worst].p_unsafe ? number : worst), 0));
  return [element("h4", null, "Parts"), element("div", { class: "windows" }, ...buttons), text];
}

/** The texts with one window marked. Places count Unicode's characters, of which a JavaScript string may need two. */
function highlighted(texts, { begin, end }) {
  return texts.flatMap((content, message) => {
    const characters = Array.from(content);
    const from = message < begin.message ? characters.length : message > begin.message ? 0 : begin.character;
    const to = message < end.message ? characters.length : message > end.message ? 0 : end.character;
    const cut = (start, stop) => characters.slice(start, stop).join("");
    const middle = from < to ? element("mark", null, cut(from, to)) : null;
    const pieces = middle ? [isolated(cut(0, from)), middle, isolated(cut(to))] : [isolated(content)];
    return message ? [document.createTextNode("\n\n"), ...pieces] : pieces;
  });
}

function facts({ verdict, requestId }) {
  const found = [`release ${verdict.release}`, `${verdict.role}'s turn judged`, `${verdict.num_tokens} tokens read`];
  found.push(`${verdict.num_truncated_tokens} dropped`, verdict.calibration == null ? "not calibrated" : `calibration ${verdict.calibration}`);
  return element("p", { class: "small soft facts" }, `${found.join(" · ")} · request ${requestId}`);
}

/** Two verdicts on one conversation, row by row; a category is the same where code and name are. */
export function comparison(left, right) {
  const scores = (verdict) => new Map(ranked(verdict).map((score) => [named(score), score]));
  const [ours, theirs] = [scores(left), scores(right)];
  const cell = (p) => element("td", null, p == null ? "–" : probability(p));
  const row = (name, a, b) => element("tr", null, element("th", { scope: "row" }, isolated(name)), a, b);
  const words = (verdict) => element("td", { class: verdict.action ?? "" }, WORDS[verdict.action] ?? "–");
  const head = ["", left.policy, right.policy].map((text) => element("th", { scope: "col" }, isolated(text)));
  const rows = [row("action", words(left), words(right))];
  for (const [name, field] of [["P(unsafe)", "p_unsafe"], ["P(safe)", "p_safe"], ["unexplored", "unexplored"]]) {
    rows.push(row(name, cell(left[field]), cell(right[field])));
  }
  for (const name of new Set([...ours.keys(), ...theirs.keys()])) {
    rows.push(row(name, cell(ours.get(name)?.marginal), cell(theirs.get(name)?.marginal)));
  }
  const caption = element("caption", { class: "visually-hidden" }, "Raw probabilities by the two policies");
  return element("div", { class: "wide" }, element("table", { class: "compared" }, caption, element("thead", null, element("tr", null, ...head)), element("tbody", null, ...rows)));
}
