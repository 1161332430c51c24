/**
 * To be imported before onnxruntime-node, whose library reads it when it is loaded: it otherwise writes
 * an id of this device, and a database of events, into the user's cache (1.30).
 */

process.env.ORT_DISABLE_TELEMETRY ??= "1";
