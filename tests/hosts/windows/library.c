/* A C program on Windows over glm.dll, for tests/hosts/test_windows.py. All but `refusals` read a
 * prompt as UTF-8 from a file.
 *
 *   library FOLDER vector FILE TEMPERATURE TOP_K TOP_P SEED LIMIT   one JSON object
 *   library FOLDER cancel FILE MILLISECONDS                         status and sentence, then tokens
 *   library FOLDER refusals                                         a status and sentence a line
 *   library FOLDER preloaded   the same of loading, where the system's onnxruntime.dll is loaded
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

#include "glm.h"

enum { MOST_BYTES = 1 << 16, MOST_IDS = 1 << 13, MOST_LOGITS = 1 << 13 };

static char text[MOST_BYTES];
static size_t length;
static int32_t ids[MOST_IDS];
static size_t count;
static float logits[MOST_LOGITS];
static glm_model* model;
static glm_session* session;

static void check(glm_status status) {
  if (status == GLM_OK) return;
  printf("%d %s\n", status, glm_error_text());
  exit(1);
}

static void read_prompt(const char* path) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) exit(2);
  length = fread(text, 1, sizeof text, file);
  fclose(file);
  check(glm_tokenize(model, text, length, ids, MOST_IDS, &count));
  if (count > MOST_IDS) exit(2);
}

static int print_token(void* is_first, const glm_piece* piece) {
  printf(*(int*)is_first ? "%d" : ", %d", (int)piece->token);
  *(int*)is_first = 0;
  return 0;
}

static void print_answer(const char* name, const glm_settings* settings) {
  int is_first = 1;
  printf(", \"%s\": [", name);
  check(glm_generate(session, ids, count, settings, print_token, &is_first));
  printf("]");
  glm_free_session(session); /* so that each answer is a new session's */
  check(glm_new_session(model, &session));
}

static void print_vector(char** numbers) {
  size_t vocab_size = 0;
  glm_settings settings = {.size = sizeof settings};
  check(glm_default_settings(model, &settings));
  check(glm_logits(session, ids, count, logits, MOST_LOGITS, &vocab_size));
  if (vocab_size > MOST_LOGITS) exit(2);
  printf("{\"token_ids\": [");
  for (size_t i = 0; i < count; ++i) printf(i == 0 ? "%d" : ", %d", (int)ids[i]);
  printf("], \"logits\": [");
  for (size_t i = 0; i < vocab_size; ++i) printf(i == 0 ? "%.9g" : ", %.9g", logits[i]);
  printf("]");
  settings.temperature = 0;
  settings.max_new_tokens = atoi(numbers[4]);
  print_answer("greedy", &settings);
  settings.temperature = atof(numbers[0]);
  settings.top_k = atoi(numbers[1]);
  settings.top_p = atof(numbers[2]);
  settings.has_seed = 1;
  settings.seed = strtoul(numbers[3], NULL, 10);
  print_answer("sampled", &settings);
  printf("}\n");
}

static DWORD WINAPI cancel_later(void* milliseconds) {
  Sleep(*(DWORD*)milliseconds);
  glm_cancel(session);
  return 0;
}

static void cancel(DWORD milliseconds) {
  int is_first = 1;
  glm_settings settings = {.size = sizeof settings};
  check(glm_default_settings(model, &settings));
  settings.temperature = 0;
  settings.max_new_tokens = 4;
  HANDLE thread = CreateThread(NULL, 0, cancel_later, &milliseconds, 0, NULL);
  glm_status status = glm_generate(session, ids, count, &settings, NULL, NULL);
  printf("%d %s\n", status, glm_error_text());
  WaitForSingleObject(thread, INFINITE);
  check(glm_generate(session, ids, count, &settings, print_token, &is_first));
  printf("\n");
}

static void print_refusal(glm_status status) { printf("%d %s\n", status, glm_error_text()); }

static void print_refusals(void) {
  glm_model* other = NULL;
  print_refusal(glm_load("\xED\xA0\x80", NULL, &other)); /* half a surrogate pair */
  print_refusal(glm_load("C:\\nowhere\\*?", NULL, &other));
  print_refusal(glm_load("NUL", NULL, &other));
  print_refusal(glm_tokenize(model, "\xFF", 1, ids, MOST_IDS, &count));
  for (size_t i = 0; i < MOST_IDS; ++i) ids[i] = 5;
  print_refusal(glm_generate(session, ids, MOST_IDS, NULL, NULL, NULL));
  print_refusal(glm_generate(session, ids, 0, NULL, NULL, NULL));
  print_refusal(glm_generate(NULL, ids, 1, NULL, NULL, NULL));
}

int main(int arguments, char** values) {
  if (arguments < 3) return 2;
  if (strcmp(values[2], "preloaded") == 0) {
    DWORD flags = LOAD_LIBRARY_SEARCH_SYSTEM32;
    if (LoadLibraryExW(L"onnxruntime.dll", NULL, flags) == NULL) return 2;
  }
  check(glm_load(values[1], NULL, &model));
  check(glm_new_session(model, &session));
  if (arguments > 3) read_prompt(values[3]);
  if (strcmp(values[2], "vector") == 0 && arguments == 9) print_vector(&values[4]);
  if (strcmp(values[2], "cancel") == 0 && arguments == 5) cancel((DWORD)atoi(values[4]));
  if (strcmp(values[2], "refusals") == 0) print_refusals();
  glm_free_session(session);
  glm_free(model);
  return 0;
}
