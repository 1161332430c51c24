/** Formats numbers for people. */

const STEPS = ["bytes", "kB", "MB", "GB", "TB"];

/**
 * Format a size in powers of 1,000 with three digits, as browsers do.
 * @param {number} count
 */
export function formatBytes(count) {
  let step = 0;
  while (count >= 999.5 && step < STEPS.length - 1) {
    count /= 1000;
    step++;
  }
  return `${step ? count.toPrecision(3) : count} ${STEPS[step]}`;
}
