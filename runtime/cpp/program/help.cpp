// The text of glm-run --help.
#include "arguments.hpp"

const char kHelp[] = R"(Usage: glm-run COMMAND DIR [OPTIONS]

Run a folder that glm-export wrote.

Commands:
  generate    Answer one prompt. The answer is printed while it is generated.
  chat        Hold a conversation. Each line of standard input is a question.
  bench       Measure the time to first token and the tokens per second.
  prepare     Write a copy of the folder's graph with weights packed for this machine.
  tokenize    Print the token ids of each line of standard input.

Examples:
  glm-run generate DIR --prompt 'Recite John 3:16.'
  glm-run generate DIR --prompt 'In the' --raw --json
  glm-run chat DIR --system 'Answer briefly.'

Prompt:
  --prompt TEXT              Text of the prompt; "-" reads it from standard input.
  --prompt-file FILE         File with the text of the prompt.
  --system TEXT              System message at the start of the conversation.
  --tools FILE               JSON list of tools in OpenAI's format (generate --json only).
  --prefill TEXT             Beginning of the answer, which the model continues (generate only).
  --sanitize                 Read names of control tokens in messages as plain text, as chat does.
  --no-sanitize              Let them become control tokens, as generate does by default.
  --raw                      Use the prompt as it is, without the chat template.
  --thinking                 Ask for reasoning, if the chat template supports this.
  --no-thinking              Ask for an answer without reasoning, if the template supports this.
  --max-thinking-tokens N    Limit reasoning to N tokens.

Sampling (by default, as the folder recommends):
  --greedy                   Always choose the most likely token.
  --temperature X            Divide logits by X; 0 is greedy decoding.
  --top-k N                  Keep the N most likely tokens; 0 keeps all.
  --top-p P                  Keep the most likely tokens that reach probability P; 1 keeps all.
  --min-p P                  Drop tokens less likely than P times the most likely token.
  --repetition-penalty X     Make tokens of the prompt and answer less likely; 1 turns it off.
  --presence-penalty X       Subtracted once from the logit of every token already generated.
  --frequency-penalty X      Subtracted from a token's logit for each earlier occurrence.
  --dry-multiplier X         Strength of the DRY repetition penalty; 0 turns it off.
  --dry-base X               Factor by which the DRY penalty grows for each repeated token.
  --dry-allowed-length N     Shortest repeated sequence, in tokens, that DRY penalizes.
  --logit-bias ID=X          Add X to the logit of token ID; -inf forbids it. May be repeated.
  --seed N                   Seed of the random generator; one seed gives one answer.

End of the answer:
  --stop TEXT                End the answer before this text. May be repeated.
  --ignore-eos               Never choose a token that ends the answer.
  --max-new-tokens N         Limit the answer to N tokens.

Loading and output:
  --threads N                Number of threads; by default, the number of physical cores.
  --huge-pages               Use huge pages (Linux): slower loading, faster decoding.
  --no-huge-pages            Never. By default, bench uses them, and chat after its first answer.
  --prepared COPY            Map the packed weights that prepare wrote to the folder COPY.
  --rope-scaling KIND        Replace the rotary settings: yarn extends the context, none does not.
  --factor X                 YaRN scaling factor, for example 4.
  --original-context N       Number of tokens of the training context, for YaRN.
  --verify                   Compare the SHA-256 of every file with the manifest first.
  --json                     Print one JSON object (generate and bench).

Options of one command:
  --output COPY              Name of the new folder that prepare writes.
  --prompt-tokens N          Number of prompt tokens in bench; 128 by default.
  --new-tokens N             Number of generated tokens in bench; 64 by default.
  --rounds N                 Number of measured rounds in bench; 5 by default.

  --help                     Show this text; -h is the same option.
  --version                  Show the version.

In a chat, Ctrl-C ends the answer, /help lists the commands, and /exit ends the program.
)";

const char kChatHelp[] = R"(  /help         Show this list.
  /reset        Forget the conversation, but not the system message.
  /system TEXT  Replace the system message; without TEXT, show it.
  /retry        Answer the last message again.
  /exit         End the program. Ctrl-C ends an answer.
)";
