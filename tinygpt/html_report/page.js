// Build the page, then show the last training step.

showRun();
buildAttention();
showAblationText();
buildHistories();
startSlider($("step"), snapshots.length, (i) => {
  chosen.snapshot = i;
  const { step } = snapshots[i];
  $("step-at").textContent = step ? `step ${whole(step)}` : "step 0: the initialization";
  showAttention();
  showTokenLosses();
  drawHistories();
});
