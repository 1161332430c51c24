/**
 * One model through runtime/node; needs `npm ci` there.
 *
 *     node node_worker.js FOLDER THREADS
 */

import { load } from "../../runtime/node/src/index.js";
import { serve } from "./answering.js";

const [folder, threads] = process.argv.slice(2);

await serve(async () => {
  const model = await load(folder, { threads: Number(threads) });
  return async function* generate(prompt, count) {
    for await (const piece of model.generate(prompt, { temperature: 0, maxNewTokens: count })) {
      yield piece.tokenId;
    }
  };
});
