// The picture that waits for a second one to be compared with.

let first = null; // "JOB/INDEX"

/** The first call keeps an image, the second opens both side by side. */
export function compareWith(job, index) {
  const now = `${job}/${index}`;
  if (first && first !== now) {
    location.hash = `#/compare/${first}/${now}`;
    first = null;
    return;
  }
  first = now;
  location.hash = `#/compare/${now}`;
}
