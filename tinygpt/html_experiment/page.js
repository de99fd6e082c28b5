// Tables of an experiment: the answer, the arms, the comparisons, failures, cells, plan.

const { plan, result, curves, lineage, command } = JSON.parse($("data").textContent);
const names = plan.arms.map((arm) => arm.name);

const number = (x, digits = 4) => (x === null ? "–" : fixed(x, digits));
const signedNumber = (x) => (x === null ? "–" : signed(x, 4));
const interval = (pair) => (pair ? `${signed(pair[0], 4)} to ${signed(pair[1], 4)}` : "–");
const spread = (value) =>
  value === null ? "–" : `${number(value.mean)}${value.deviation === null ? "" : ` ± ${number(value.deviation)}`}`;

function showAnswer() {
  $("question").textContent = plan.question;
  for (const one of result.comparisons) $("answers").append(el("li", {}, one.words));
  const level = result.level === null ? "none left" : number(result.level, 5);
  $("about").textContent =
    `${plan.arms.length} arms, ${plan.seeds.length} seeds each (${plan.seeds.join(", ")}). ` +
    `Measured: ${plan.measure}. Budget: ${plan.budget}. Smallest difference that matters: ` +
    `${plan.min_effect} bits per byte. NthLook ${result.look} at this question, level ${level}. ` +
    `Interval over documents: ${result.documents}.`;
  for (const note of result.notes) $("notes").append(el("li", {}, note));
}

function showArms() {
  const rows = result.arms.map((arm, i) => ({
    own: i === 0,
    cells: [
      arm.name,
      spread(arm.bits_per_byte),
      number(arm.median),
      spread(arm.loss),
      whole(plan.arms[i].max_steps),
      arm.seconds === null ? "–" : fixed(arm.seconds, 1),
      `${arm.failures} of ${arm.cells}`,
    ],
  }));
  const titles = ["arm", "bits per byte", "median", "loss [nats]", "steps", "training [s]", "failed"];
  $("arms").append(...table(titles, rows));
}

function showComparisons() {
  const rows = result.comparisons.map((one) => ({
    cells: [
      one.arm,
      one.verdict,
      signedNumber(one.difference),
      interval(one.intervals["95 % over seeds"]),
      interval(one.intervals["95 % over documents"]),
      interval(one.intervals["95 % over both"]),
      number(one.failure_p === null ? one.adjusted_p : one.failure_p, 5),
      number(one.deviation),
      number(one.baseline_deviation),
      number(one.correlation, 2),
    ],
  }));
  const titles = [
    `against ${names[0]}`,
    "verdict",
    "difference",
    "over seeds",
    "over documents",
    "over both",
    "adjusted p",
    "spread",
    "that of the first",
    "correlation",
  ];
  $("comparisons").append(...table(titles, rows));
  drawDifferences($("differences"), result.comparisons);
}

function showFailures() {
  if (!result.failures.length) {
    $("failed").remove();
    return;
  }
  const rows = result.failures.map(({ arm, seed, kind, step, last_loss }) => ({
    cells: [arm, String(seed), kind, whole(step), number(last_loss)],
  }));
  $("failures").append(...table(["arm", "seed", "what", "last step", "last loss [nats]"], rows));
  const byValue = result.failures_by_value.flatMap(({ key, failures, p }) =>
    Object.entries(failures).map(([value, [failed, all]]) => ({
      cells: [`${key} = ${value}`, `${failed} of ${all}`, number(value in p ? p[value] : null, 5)],
    })),
  );
  const titles = ["over all other values and seeds", "failed", "p against the first value"];
  if (byValue.length) $("by-value").append(...table(titles, byValue));
}

function showCells() {
  const rows = result.cells.map(({ arm, seed, train, bits_per_byte, loss, seconds }) => ({
    cells: [
      arm,
      String(seed),
      number(bits_per_byte, 5),
      number(loss, 5),
      seconds === null ? "–" : fixed(seconds, 1),
      train === null ? "–" : train,
    ],
  }));
  const titles = ["arm", "seed", "bits per byte", "loss [nats]", "training [s]", "model"];
  $("cells").append(...table(titles, rows));
}

function showPlan() {
  $("command").textContent = command;
  const shown = {
    plan: result.plan,
    question: plan.question_id,
    ...plan.conditions,
    ...plan.versions,
    jobs: plan.jobs,
  };
  for (const arm of plan.arms) {
    const step = arm.step_seconds === null ? "" : `, ${arm.step_seconds} s each`;
    shown[arm.name] = `${whole(arm.max_steps)} steps${step}, ${whole(arm.tokens)} tokens, ${arm.precision}`;
  }
  const entries = Object.entries(shown).map(([name, value]) => [name, String(value)]);
  $("plan").append(nameValueRows(entries));
  $("lineage").append(nameValueRows(lineage));
}

showAnswer();
showArms();
showComparisons();
showFailures();
drawCurves($("curves"), names, curves);
showCells();
showPlan();
