/**
 * Turns the telemetry of onnxruntime off. Import this module before onnxruntime-node.
 *
 * onnxruntime 1.30 otherwise writes a device id and a database of events into the user's cache folder.
 */

process.env.ORT_DISABLE_TELEMETRY ??= "1";
