// Build the page, then show the last training step.

showRun();
buildAttention();
showAblationText();
buildHistories();

function showStep(i) {
  chosen.snapshot = i;
  const { step } = snapshots[i];
  if (report.curves)
    $("step-at").textContent = step ? `step ${whole(step)}` : "step 0: the initialization";
  showAttention();
  showTokenLosses();
  drawHistories();
}

if (report.curves) startSlider($("step"), snapshots.length, showStep);
else showStep(0); // an imported model has no other weights
