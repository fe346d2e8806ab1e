// Follows what workers do: numbers change in place, and the page is loaded anew at each step.

const SECONDS = { goesOn: 3, idle: 20 };
const page = document.querySelector("[data-progress]");

async function follow() {
  const answer = await fetch(page.dataset.progress, { headers: { Accept: "application/json" } });
  if (answer.status === 401) {
    location.reload();
  }
  if (!answer.ok) {
    return false;
  }
  const now = await answer.json();
  if (now.stamp !== page.dataset.stamp) {
    location.reload();
  }
  for (const run of now.runs) {
    for (const cell of document.querySelectorAll(`[data-run="${CSS.escape(run.id)}"] [data-shows]`)) {
      cell.textContent = run[cell.dataset.shows];
    }
  }
  return now.goes_on;
}

async function again() {
  let goesOn = false;
  try {
    goesOn = !document.hidden && (await follow());
  } catch {
    // The server is away: what is shown stays.
  }
  setTimeout(again, 1000 * (goesOn ? SECONDS.goesOn : SECONDS.idle));
}

if (page.dataset.stamp) {
  setTimeout(again, 1000 * SECONDS.goesOn);
}
