/** Brings a folder into this browser: fetched, or copied from the disk, and kept where there is room. */

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
  makePlace,
  markWhole,
  openStored,
  readChunks,
  writeFile,
} from "./stored_folders.js";
import { formatBytes } from "./units.js";

const ADVICE = "give the folder that glm-export wrote.";
const LARGEST_MANIFEST_BYTES = 2 ** 26; // the 9B's has 0.2 MB

/** @typedef {import("./source_files.js").Source} Source */
/** @typedef {import("glm-runtime/core").FileEntry} FileEntry */

/** @typedef {import("./fetch_files.js").Request} Request */

/**
 * Fetch what is not here yet.
 * @param {Request} request
 * @returns {Promise<{ folder: FileFolder, note: string, isVerified: boolean }>}  a note says what the user should know
 * @throws {FolderError} a file is missing, or not what the manifest promises.
 * @throws {import("glm-runtime/core").FormatVersionError} a newer glm-export wrote it.
 * @throws {StorageError} there is no room.
 * @throws {import("./errors.js").TooLargeError} no page could hold the model.
 */
export async function keepFolder(request) {
  const { source, signal } = request;
  let bytes;
  try {
    bytes = await readManifestBytes(source, signal);
  } catch (error) {
    const stored = error instanceof UnreachableError ? await findStored(source.key) : null;
    if (!stored) throw error;
    return { folder: await openStored(stored.id), note: "no connection: the copy kept in this browser answers", isVerified: false };
  }
  const files = await checkManifest(source.label, bytes);
  const wanted = [...files].sort(([, left], [, right]) => left.sizeBytes - right.sizeBytes);
  if (!(await canStore())) return holdFiles(request, bytes, wanted);
  const id = identify(bytes);
  try {
    await storeFiles(request, bytes, wanted);
  } catch (error) {
    await deleteEmpty(id);
    throw error;
  }
  if (source.isLasting) await replaceOthers(source.key, id);
  return { folder: await openStored(id), note: "", isVerified: true };
}

/**
 * Refuse a kept folder that was changed. What is bad is deleted, so that the next try fetches it.
 * @param {FileFolder} folder
 * @throws {FolderError} names the files.
 */
export async function verifyStored(folder) {
  const { files } = await readManifest(folder);
  const bad = [];
  for (const [name, { sha256 }] of files) if ((await folder.hash(name)) !== sha256) bad.push(name);
  if (!bad.length) return;
  await discardFiles(folder.id, bad);
  throw new FolderError(
    `${folder.label} is damaged: the SHA-256 of ${bad.join(", ")} is not the manifest's; ` +
      "what is damaged was deleted: fetch or pick the folder again.",
  );
}

/**
 * @param {Request} request
 * @param {Uint8Array} manifest
 * @param {[string, FileEntry][]} wanted
 */
async function storeFiles(request, manifest, wanted) {
  const { source, verify = false } = request;
  const place = await preparePlace(source, manifest, wanted);
  await fetchFiles(request, wanted, (name, entry) => DiskPart.open(place, name, entry, verify));
  try {
    await writeFile(place, MANIFEST_NAME, manifest);
    await markWhole(place, source);
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
      throw new FolderError(`${source.label}/${MANIFEST_NAME} is endless; ${ADVICE}`);
    }
  }
  const bytes = new Uint8Array(await new Blob(chunks).arrayBuffer());
  if (bytes[0] !== "<".charCodeAt(0)) return bytes;
  throw new AbsentError(`${source.label}/${MANIFEST_NAME} is a web page where JSON is expected; ${ADVICE}`);
}

/**
 * @param {Source} source
 * @param {AbortSignal} [signal]
 * @throws {AbsentError} there is none, or the server does not say.
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
 * Refuse what cannot run before its weights are fetched.
 * @param {string} label
 * @param {Uint8Array} bytes
 */
async function checkManifest(label, bytes) {
  const alone = new FileFolder(label, [MANIFEST_NAME], async () => toBlob(bytes));
  const { files } = await readManifest(alone);
  const reserved = [...files.keys()].find(isReserved);
  if (reserved !== undefined) {
    throw new FolderError(
      `${MANIFEST_NAME}: files names ${JSON.stringify(reserved)}, which is where this browser keeps something else; export the folder again.`,
    );
  }
  let total = 0;
  for (const { sizeBytes } of files.values()) total += sizeBytes;
  requireFit(JSON.parse(new TextDecoder().decode(bytes)), total);
  return files;
}

/**
 * Where to keep it.
 * @param {Source} source
 * @param {Uint8Array} manifest
 * @param {[string, FileEntry][]} files
 * @throws {StorageError} there is no room.
 */
async function preparePlace(source, manifest, files) {
  const place = await makePlace(identify(manifest));
  let needed = 0;
  for (const [name, { sizeBytes }] of files) {
    const found = (await findFile(place, name)) ?? (await findFile(place, `${name}${PART}`));
    needed += Math.max(0, sizeBytes - (found?.size ?? 0));
  }
  const { quota = Infinity, usage = 0 } = await navigator.storage.estimate();
  if (needed <= quota - usage) return place;
  throw new StorageError(
    `${source.label} needs ${formatBytes(needed)} where this browser has ${formatBytes(Math.max(0, quota - usage))} ` +
      "for this page; delete what is kept, or free disk space.",
  );
}

/**
 * Without a place to keep files they are held in memory, as long as the page is open.
 * @param {Request} request
 * @param {Uint8Array} manifest
 * @param {[string, FileEntry][]} wanted
 */
async function holdFiles(request, manifest, wanted) {
  /** @type {Map<string, Blob>} */
  const held = new Map([[MANIFEST_NAME, toBlob(manifest)]]);
  await fetchFiles(request, wanted, async (name) => new MemoryPart((whole) => held.set(name, whole)));
  const folder = new FileFolder(request.source.label, [...held.keys()], async (name) => held.get(name) ?? null);
  return { folder, note: "this browser keeps no files for this page: it will not work offline", isVerified: true };
}

/** @param {Uint8Array} bytes */
function toBlob(bytes) {
  return new Blob([/** @type {BlobPart} */ (bytes)]);
}

/**
 * What came from the same address before goes.
 * @param {string} key
 * @param {string} id
 */
async function replaceOthers(key, id) {
  for (const one of await listStored()) if (one.id !== id && one.keys.includes(key)) await forgetSource(one, key);
}
