// The form: turns, options, and what is asked of the gateway. Nothing is kept beyond this page's memory.

import { comparison } from "./comparison.js";
import { element, visible } from "./elements.js";
import { watch } from "./thresholds.js";
import { card, summary } from "./verdict.js";

const find = (id) => document.getElementById(id);
const [form, turns, section, status] = ["ask", "turns", "verdict", "status"].map(find);
const KEY = /^[!-~]*$/; // what a header may hold
const limits = new Map(); // by policy, by code: thresholds, where the gateway lists them
let asked = new AbortController();

function headers() {
  const key = find("key").value.trim();
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** The gateway's JSON, with its request's id; throws an Error with words for people. */
async function answered(path, options, signal) {
  if (!KEY.test(find("key").value.trim())) throw new Error("An API key has no such characters.");
  let response;
  try {
    response = await fetch(path, {
      ...options,
      headers: { ...options.headers, ...headers() },
      signal,
      cache: "no-store",
      redirect: "error",
    });
  } catch (fault) {
    if (fault.name === "AbortError") throw fault;
    throw new Error("The gateway does not answer. Is it still there?");
  }
  const requestId = response.headers.get("x-request-id") ?? "unknown";
  const body = await response.json().catch(() => null);
  if (response.ok && body) return { ...body, requestId };
  const wait = response.headers.get("retry-after");
  const words = body?.error?.message ?? "The answer has no words.";
  throw Object.assign(new Error(`Refused (${response.status}): ${words}${wait ? ` Try again in ${wait} s.` : ""}`), {
    requestId,
    status: response.status,
  });
}

function addTurn(role) {
  turns.append(find("turn").content.cloneNode(true));
  const turn = turns.lastElementChild;
  turn.querySelector(".role").value = role;
  turn.querySelector(".remove").addEventListener("click", () => {
    const next = turn.previousElementSibling ?? turn.nextElementSibling;
    turn.remove();
    number();
    next.querySelector("textarea").focus();
  });
  number();
  return turn.querySelector("textarea");
}

/** Say in each control's name which turn it is of. */
function number() {
  [...turns.children].forEach((turn, index) => {
    turn.querySelector(".role").setAttribute("aria-label", `Role of turn ${index + 1}`);
    turn.querySelector("textarea").setAttribute("aria-label", `Text of turn ${index + 1}`);
    turn.querySelector(".remove").setAttribute("aria-label", `Remove turn ${index + 1}`);
  });
}

function conversation() {
  return [...turns.children].map((turn) => ({
    role: turn.querySelector(".role").value,
    content: turn.querySelector("textarea").value,
  }));
}

/** Whether every turn has text; the browser says so at the first that has none. */
function isComplete() {
  for (const field of turns.querySelectorAll("textarea")) {
    field.setCustomValidity(field.value.trim() ? "" : "Write something here, or remove the turn.");
  }
  return form.reportValidity();
}

async function classify(messages, policy, signal) {
  const truncate = find("truncate").value || undefined;
  const body = JSON.stringify({ messages, policy: policy || undefined, truncate });
  return answered("v1/classify", { method: "POST", body, headers: { "content-type": "application/json" } }, signal);
}

async function judge() {
  if (!isComplete()) return;
  asked.abort();
  asked = new AbortController();
  const { signal } = asked;
  const messages = conversation();
  const policies = [find("policy").value.trim(), find("other").value.trim()].filter((name, index) => !index || name);
  section.setAttribute("aria-busy", "true");
  status.textContent = "Judging …";
  const outcomes = await Promise.allSettled(policies.map((policy) => classify(messages, policy, signal)));
  if (signal.aborted) return; // a later question has taken over
  section.removeAttribute("aria-busy");
  show(outcomes, messages, policies);
}

function show(outcomes, messages, policies) {
  const texts = messages.map((message) => message.content);
  const verdicts = outcomes.filter((one) => one.status === "fulfilled").map((one) => one.value.verdict);
  const drawn = outcomes.map((one, index) =>
    one.status === "fulfilled"
      ? card(one.value, texts, limits.get(one.value.verdict.policy) ?? new Map())
      : fault(one.reason, policies[index]),
  );
  find("comparison").replaceChildren(...(verdicts.length === 2 ? [comparison(...verdicts)] : []));
  find("verdicts").replaceChildren(...drawn);
  const said = outcomes.map((one) => (one.status === "fulfilled" ? summary(one.value.verdict) : one.reason.message));
  status.textContent = visible([...new Set(said)].join(" "));
  if (matchMedia("(max-width: 820px)").matches) section.scrollIntoView();
}

function fault(reason, policy) {
  const id = reason.requestId ? element("p", { class: "small soft" }, `request ${reason.requestId}`) : null;
  return element(
    "article",
    { class: "card" },
    element("h3", null, policy ? `No verdict by policy ${policy}` : "No verdict"),
    element("p", { class: "fault" }, reason.message),
    id,
  );
}

async function listPolicies() {
  const note = find("policies-note");
  try {
    const { release, policies } = await answered("v1/policies", {}, undefined);
    note.textContent = "";
    find("served").textContent = visible(
      `Release ${release}. Write a conversation, and see how probable each of the guard's answers is.`,
    );
    for (const id of ["policy", "other"]) offer(find(id), policies);
    for (const policy of policies)
      limits.set(policy.name, new Map([["", policy], ...policy.categories.map((each) => [each.code, each])]));
  } catch (reason) {
    note.textContent = visible(
      reason.status === 404 ? "This gateway lists no policies. Their names can be written." : reason.message,
    );
    if (reason.status === 404) ["policy", "other"].forEach(letWrite);
  }
}

function offer(select, policies) {
  const chosen = select.value;
  const names = policies.map((policy) =>
    element("option", { value: policy.name }, `${policy.name} (version ${policy.version})`),
  );
  select.replaceChildren(select.options[0], ...names);
  if (policies.some((policy) => policy.name === chosen)) select.value = chosen;
}

/** A field in place of the list, for a gateway that lists nothing. */
function letWrite(id) {
  if (find(id).tagName !== "SELECT") return;
  find(id).replaceWith(
    element("input", { id, type: "text", spellcheck: "false", placeholder: find(id).options[0].textContent }),
  );
}

find("add").addEventListener("click", () => {
  const last = turns.lastElementChild.querySelector(".role").value;
  addTurn(last === "user" ? "assistant" : "user").focus();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  judge();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    judge();
  }
});
turns.addEventListener("input", (event) => event.target.setCustomValidity?.(""));
const policy = () => find("policy").value.trim();
const showThresholds = watch(find("thresholds"), find("sliders"), policy, (path) => answered(path, {}, undefined));
form.addEventListener("change", showThresholds);
find("key").addEventListener("change", listPolicies);
addTurn("user").focus();
listPolicies();
