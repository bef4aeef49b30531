// The live events of a job. EventSource cannot send a key; fetch can.

import { checked, headers } from "./api.js";
import { FINAL } from "./bar.js";

const AGAIN = 1500; // milliseconds after a cut

/** Calls on(event, data) for each server-sent event of a job, resuming after a cut, until
 *  the job's end or `signal`. */
export async function listen(jobId, on, signal) {
  let last = null;
  while (!signal.aborted) {
    try {
      const more = last ? { "last-event-id": last } : {};
      const path = `/v1/jobs/${jobId}/events`;
      const response = await checked(await fetch(path, { headers: headers(more), signal }));
      if (response.status === 204) return;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const parts = (rest + value).split("\n\n");
        rest = parts.pop();
        for (const part of parts) {
          const { id, event, data } = read(part);
          last = id ?? last;
          if (!event) continue;
          on(event, data);
          if (event === "state" && (FINAL.includes(data.state) || data.state === "deleted")) return;
        }
      }
    } catch (error) {
      if (signal.aborted || [401, 404].includes(error.status)) return;
    }
    await new Promise((wake) => setTimeout(wake, AGAIN));
  }
}

function read(part) {
  const fields = {};
  for (const line of part.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
  }
  return { id: fields.id, event: fields.event, data: fields.event && JSON.parse(fields.data) };
}
