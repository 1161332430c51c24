/**
 * One model through runtime/node; needs `npm ci` there.
 *
 *     node node_worker.js FOLDER THREADS
 */

import { load } from "../../runtime/node/src/index.js";
import { measure, serve } from "./answering.js";

const [folder, threads] = process.argv.slice(2);

await serve(async () => {
  const model = await load(folder, { threads: Number(threads) });
  return (prompt, count) => measure(model, prompt, count);
});
