/** All that knows neither disk nor onnxruntime-node, for hosts such as `runtime/web`: read `graph.js` and `text_files.js`. */

export { Decoder } from "./decoder.js";
export * from "./errors.js";
export { Graph, checkTensors, listCacheNames } from "./graph.js";
export { MANIFEST_NAME, readManifest } from "./manifest.js";
export { Model, openModel } from "./model.js";
export { Session } from "./session.js";
