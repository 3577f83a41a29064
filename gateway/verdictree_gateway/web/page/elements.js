// The page's building blocks. Texts become text nodes, never HTML, and what would hide or reorder them is spelled out.

// As Python's verdictree/text/visible.py has them; ignorable ones are invisible without being of a hidden kind.
const KINDS = "\\p{Cc}\\p{Cf}\\p{Co}\\p{Cs}\\p{Zl}\\p{Zp}";
const IGNORABLE =
  "\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u3164\\ufe00-\\ufe0d\\uffa0\\u{e0100}-\\u{e01ef}";
const HIDDEN = new RegExp(`[${KINDS}${IGNORABLE}]`, "gu");
const KEPT = "\n\t";

/** A stranger's text as it may be shown: direction marks, escapes and the like as \u{202e}. */
export function visible(text) {
  return String(text).replace(HIDDEN, (c) => (KEPT.includes(c) ? c : `\\u{${c.codePointAt(0).toString(16)}}`));
}

/** An element with attributes and children; null children are left out, strings are shown as `visible` has them. */
export function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) made.setAttribute(name, value);
  made.append(
    ...children.filter((child) => child != null).map((child) => (typeof child === "string" ? visible(child) : child)),
  );
  return made;
}

/** A text of its own direction, so that it cannot turn its surroundings around. */
export function isolated(text) {
  return element("bdi", null, text);
}

/** A probability to four decimals; the whole number is the element's value. */
export function probability(p) {
  return element("data", { value: p, title: String(p) }, shown(p));
}

/** A probability in words of four decimals; what is nearly 0 or 1 is not shown as if it were. */
export function shown(p) {
  if (p > 0 && p < 0.00005) return "<0.0001";
  if (p < 1 && p > 0.99995) return ">0.9999";
  return p.toFixed(4);
}

/** Shares of 1, [[share, kind], …], side by side. `label` says them to who does not see them. */
export function bar(shares, label) {
  const whole = Math.max(
    1,
    shares.reduce((sum, [share]) => sum + share, 0),
  );
  const parts = shares.map(([share, kind]) => {
    const part = element("span", { class: kind });
    part.style.width = `${(100 * share) / whole}%`;
    return part;
  });
  return element(
    "div",
    label ? { class: "bar", role: "img", "aria-label": visible(label) } : { class: "bar", "aria-hidden": "true" },
    ...parts,
  );
}

/** A bar of named shares, [[share, kind, name], …], and the key to it. */
export function keyedBar(shares) {
  const label = shares.map(([share, , name]) => `${name} ${shown(share)}`).join(", ");
  const key = ([share, kind, name]) =>
    element("li", { class: `key ${kind}` }, element("span", null, `${name} `, probability(share)));
  return [bar(shares, label), element("ul", { class: "keys" }, ...shares.map(key))];
}
