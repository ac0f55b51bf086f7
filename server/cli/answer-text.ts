/** Answers of commands and decisions, for people. */
import { CommandAnswer, DecisionsAnswer, RemoveAnswer } from '../schemas/answers.ts';
import { checker } from '../validation.ts';
import { expectBody } from './api-client.ts';

const checkCommand = checker(CommandAnswer);
const checkRemove = checker(RemoveAnswer);
const checkDecisions = checker(DecisionsAnswer);

export function answerText(verb: string, body: unknown): string {
  if (verb === 'decisions') {
    const decisions = expectBody(checkDecisions(body));
    if (decisions.length === 0) return 'no decisions yet';
    return decisions
      .map(({ kind, rule, result, inputs }) => {
        const facts = Object.entries(inputs).map(([key, value]) => `${key}=${String(value)}`);
        return [`${kind}: ${rule}: ${result}`, ...(facts.length > 0 ? [`    ${facts.join(' ')}`] : [])].join(
          '\n',
        );
      })
      .join('\n');
  }
  if (verb === 'delete') return outcome(expectBody(checkRemove(body)));
  const { message, givenUp, status } = expectBody(checkCommand(body));
  return outcome({ message: `${status.name}: ${message}`, givenUp });
}

function outcome({ message, givenUp }: { message: string; givenUp: readonly string[] }): string {
  return [message, ...givenUp.map((what) => `given up: ${what}`)].join('\n');
}
