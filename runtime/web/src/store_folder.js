/** Copies a folder from a server or the disk into this browser's storage. */

import { FolderError, MANIFEST_NAME, readManifest } from "glm-runtime/core";

import { AbsentError, StorageError } from "./errors.js";
import { DiskPart, MemoryPart, explainAccess, explainFull, fetchFiles } from "./fetch_files.js";
import { requireFit } from "./memory_limits.js";
import { UnreachableError } from "./source_files.js";
import {
  FileFolder,
  PART,
  canStore,
  deleteEmpty,
  discardFiles,
  findFile,
  forgetSource,
  identify,
  isReserved,
  listStored,
  makeDirectory,
  markWhole,
  openStored,
  readChunks,
  writeFile,
} from "./stored_folders.js";
import { formatBytes } from "./units.js";

const ADVICE = "choose a folder that glm-export wrote.";
const LARGEST_MANIFEST_BYTES = 2 ** 26; // the manifest of a 9B model has 0.2 MB

/** @typedef {import("./source_files.js").Source} Source */
/** @typedef {import("glm-runtime/core").FileEntry} FileEntry */

/** @typedef {import("./fetch_files.js").Request} Request */

/**
 * Fetch the files of a folder that are not stored yet.
 * @param {Request} request
 * @returns {Promise<{ folder: FileFolder, note: string, isVerified: boolean }>}  `note` is a message for the user, or empty
 * @throws {FolderError} a file is missing, or does not match the manifest.
 * @throws {import("glm-runtime/core").FormatVersionError} a newer version of glm-export wrote the folder.
 * @throws {StorageError} the browser's storage is full.
 * @throws {import("./errors.js").TooLargeError} the model is larger than the memory that a page can use.
 */
export async function storeFolder(request) {
  const { source, signal } = request;
  let bytes;
  try {
    bytes = await readManifestBytes(source, signal);
  } catch (error) {
    const stored = error instanceof UnreachableError ? await findStored(source.key) : null;
    if (!stored) throw error;
    return { folder: await openStored(stored.id), note: "the server cannot be reached, so the saved copy is used", isVerified: false };
  }
  const files = await checkManifest(source.label, bytes);
  const wanted = [...files].sort(([, left], [, right]) => left.sizeBytes - right.sizeBytes);
  if (!(await canStore())) return loadIntoMemory(request, bytes, wanted);
  const id = identify(bytes);
  try {
    await storeFiles(request, bytes, wanted);
  } catch (error) {
    await deleteEmpty(id);
    throw error;
  }
  if (source.replacesEarlier) await replaceOthers(source.key, id);
  return { folder: await openStored(id), note: "", isVerified: true };
}

/**
 * Check the SHA-256 of a stored folder's files. Changed files are deleted, so that they are fetched again.
 * @param {FileFolder} folder
 * @throws {FolderError} the message names the changed files.
 */
export async function verifyStored(folder) {
  const { files } = await readManifest(folder);
  const bad = [];
  for (const [name, { sha256 }] of files) if ((await folder.hash(name)) !== sha256) bad.push(name);
  if (!bad.length) return;
  await discardFiles(folder.id, bad);
  throw new FolderError(
    `${folder.label} is damaged: the SHA-256 of ${bad.join(", ")} differs from the manifest; ` +
      "the damaged files were deleted: download or pick the folder again.",
  );
}

/**
 * @param {Request} request
 * @param {Uint8Array} manifest
 * @param {[string, FileEntry][]} wanted
 */
async function storeFiles(request, manifest, wanted) {
  const { source, verify = false } = request;
  const directory = await prepareDirectory(source, manifest, wanted);
  await fetchFiles(request, wanted, (name, entry) => DiskPart.open(directory, name, entry, verify));
  try {
    await writeFile(directory, MANIFEST_NAME, manifest);
    await markWhole(directory, source);
  } catch (error) {
    const full = explainFull(error, MANIFEST_NAME, manifest.length);
    throw full === error ? explainAccess(error, MANIFEST_NAME) : full;
  }
}

/** @param {string} key */
async function findStored(key) {
  return (await listStored()).find((one) => one.isWhole && one.keys.includes(key));
}

/**
 * @param {Source} source
 * @param {AbortSignal} [signal]
 */
async function readManifestBytes(source, signal) {
  const { stream } = await openManifest(source, signal);
  /** @type {BlobPart[]} */
  const chunks = [];
  let size = 0;
  for await (const chunk of readChunks(stream)) {
    chunks.push(/** @type {BlobPart} */ (chunk));
    size += chunk.length;
    if (size > LARGEST_MANIFEST_BYTES) {
      throw new FolderError(`${source.label}/${MANIFEST_NAME} is larger than ${formatBytes(LARGEST_MANIFEST_BYTES)}; ${ADVICE}`);
    }
  }
  const bytes = new Uint8Array(await new Blob(chunks).arrayBuffer());
  if (bytes[0] !== "<".charCodeAt(0)) return bytes;
  throw new AbsentError(`${source.label}/${MANIFEST_NAME} is a web page where JSON is expected; ${ADVICE}`);
}

/**
 * @param {Source} source
 * @param {AbortSignal} [signal]
 * @throws {AbsentError} the source has no manifest.
 */
async function openManifest(source, signal) {
  try {
    return await source.open(MANIFEST_NAME, 0, signal);
  } catch (error) {
    const isAbsent = error instanceof FolderError && !(error instanceof UnreachableError);
    throw isAbsent ? new AbsentError(error.message, error) : error;
  }
}

/**
 * Check the manifest before any weights are fetched.
 * @param {string} label
 * @param {Uint8Array} bytes
 */
async function checkManifest(label, bytes) {
  const alone = new FileFolder(label, [MANIFEST_NAME], async () => toBlob(bytes));
  const { files } = await readManifest(alone);
  const reserved = [...files.keys()].find(isReserved);
  if (reserved !== undefined) {
    throw new FolderError(
      `${MANIFEST_NAME}: files contains the name ${JSON.stringify(reserved)}, which this page uses for its own records; export the folder again.`,
    );
  }
  let total = 0;
  for (const { sizeBytes } of files.values()) total += sizeBytes;
  requireFit(JSON.parse(new TextDecoder().decode(bytes)), total);
  return files;
}

/**
 * Make the directory of a folder, if there is enough storage for its files.
 * @param {Source} source
 * @param {Uint8Array} manifest
 * @param {[string, FileEntry][]} files
 * @throws {StorageError} the browser's storage is full.
 */
async function prepareDirectory(source, manifest, files) {
  const directory = await makeDirectory(identify(manifest));
  let needed = 0;
  for (const [name, { sizeBytes }] of files) {
    const found = (await findFile(directory, name)) ?? (await findFile(directory, `${name}${PART}`));
    needed += Math.max(0, sizeBytes - (found?.size ?? 0));
  }
  const { quota = Infinity, usage = 0 } = await navigator.storage.estimate();
  if (needed <= quota - usage) return directory;
  throw new StorageError(
    `${source.label} needs ${formatBytes(needed)} of storage where this browser offers ${formatBytes(Math.max(0, quota - usage))} ` +
      "to this page; delete saved models, or free disk space.",
  );
}

/**
 * Load the files into memory, for browsers that store nothing for this page.
 * @param {Request} request
 * @param {Uint8Array} manifest
 * @param {[string, FileEntry][]} wanted
 */
async function loadIntoMemory(request, manifest, wanted) {
  /** @type {Map<string, Blob>} */
  const held = new Map([[MANIFEST_NAME, toBlob(manifest)]]);
  await fetchFiles(request, wanted, async (name) => new MemoryPart((whole) => held.set(name, whole)));
  const folder = new FileFolder(request.source.label, [...held.keys()], async (name) => held.get(name) ?? null);
  return { folder, note: "this browser does not save files for this page, so the model is lost when the page closes", isVerified: true };
}

/** @param {Uint8Array} bytes */
function toBlob(bytes) {
  return new Blob([/** @type {BlobPart} */ (bytes)]);
}

/**
 * Delete folders that came from the same address earlier.
 * @param {string} key
 * @param {string} id
 */
async function replaceOthers(key, id) {
  for (const one of await listStored()) if (one.id !== id && one.keys.includes(key)) await forgetSource(one, key);
}
