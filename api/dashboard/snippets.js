// A submission as a command, as Python, as curl. A submission is {rows, defaults}, or
// {document, defaults, send} for a template, or {file, defaults}, of a document with both.

const WORDS = { negative_prompt: "negative" };
const OPTIONS = ["model", "size", "steps", "guidance", "negative_prompt", "seed", "n", "priority",
  "name", "packing", "format"];
const FEW = 20; // rows that are written out

const shell = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${String(text).replaceAll("'", `'\\''`)}'`);

export const given = (defaults) => Object.entries(defaults)
  .filter(([, value]) => value !== null && value !== undefined && value !== "");

function python(value, indent = "") {
  if (value === null) return "None";
  if (value === true || value === false) return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const deeper = `${indent}    `;
  const parts = Array.isArray(value) ? value.map((each) => python(each, deeper))
    : Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each, deeper)}`);
  const [left, right] = Array.isArray(value) ? "[]" : "{}";
  const line = `${left}${parts.join(", ")}${right}`;
  if (line.length + indent.length < 80) return line;
  return `${left}\n${parts.map((part) => `${deeper}${part},\n`).join("")}${indent}${right}`;
}

const lines = (rows) => rows.map((row) => JSON.stringify(row)).join("\n");
const long = ({ rows }) => rows && rows.length > FEW;
const named = (submission) => submission.file ?? (long(submission) ? "prompts.jsonl" : null);

export function command(submission) {
  const options = given(submission.defaults).map(([name, value]) => (OPTIONS.includes(name)
    ? `--${WORDS[name] ?? name} ${shell(value)}` : `--set ${shell(`${name}=${value}`)}`));
  const file = named(submission);
  const words = ["promptmill submit", shell(file ?? "-"), ...options, "--watch"];
  if (file) return words.join(" ");
  const [kind, text] = submission.document ? ["json", JSON.stringify(submission.document)]
    : ["jsonl", lines(submission.rows)];
  return `${words.slice(0, 2).join(" ")} --input ${kind} ${words.slice(2).join(" ")} <<'END'\n${text}\nEND`;
}

export function script(submission, origin) {
  const file = named(submission);
  const rows = file ? JSON.stringify(file) : python(submission.document ?? submission.rows, "        ");
  const defaults = given(submission.defaults).map(([name, value]) => `        ${name}=${python(value)},\n`);
  return `from promptmill.client import Client

with Client(${JSON.stringify(origin)}) as farm:
    job = farm.submit(
        ${rows},
${defaults.join("")}    )
    job.wait(progress=True)
    for image in job.images():
        print(image.index, image.url)`;
}

export function curl(submission, origin, keyed) {
  const auth = keyed ? ` \\\n  -H "authorization: Bearer $PROMPTMILL_API_KEY"` : "";
  const file = named(submission);
  if (submission.document) {
    return `curl ${shell(`${origin}/v1/jobs`)}${auth} \\\n  -H 'content-type: application/json' \\\n  -d ${shell(submission.send.body)}`;
  }
  const query = new URLSearchParams(given(submission.defaults)).toString();
  const target = shell(`${origin}/v1/jobs${query ? `?${query}` : ""}`);
  const data = file ? `-T ${shell(file)} -X POST` : `--data-binary ${shell(lines(submission.rows))}`;
  return `curl ${target}${auth} \\\n  -H 'content-type: ${type(file)}' \\\n  ${data}`;
}

const TYPES = { csv: "text/csv", txt: "text/plain; charset=utf-8", json: "application/json",
  parquet: "application/vnd.apache.parquet" };

/** The media type of a file of rows by its name. */
export function type(name) {
  const suffix = (name ?? "").toLowerCase().replace(/\.gz$/, "").split(".").pop();
  return TYPES[suffix] ?? "application/x-ndjson";
}

const STRENGTHS = { img2img: 0.8, style: 0.8, variation: 0.8 }; // as in promptmill/jobs.py

/** The submission that makes one image again, whatever the farm's defaults; what it started from
 *  is its job's copy. */
export function ofImage(image) {
  const row = { prompt: image.expanded_prompt, seed: image.seed, size: `${image.width}x${image.height}` };
  if (image.negative_prompt) row.negative_prompt = image.negative_prompt;
  if (image.steps > 0) row.steps = image.steps;
  Object.assign(row, { guidance: image.guidance, task: image.task });
  if (image.source) {
    row.source = `${image.job_id}/${image.source}`;
    if (image.mask) row.mask = `${image.job_id}/${image.mask}`;
    if (image.strength !== (STRENGTHS[image.task] ?? 1)) row.strength = image.strength;
  }
  if (image.lora) row.lora = image.lora;
  return { rows: [row], defaults: { model: image.model } };
}
