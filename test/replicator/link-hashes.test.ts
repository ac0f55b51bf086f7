/** What two links over loopback give their nodes to hash with. */
import test from 'ava';
import { connectPair, startPair } from '../support/link-pair.ts';
import type { LinkSide } from '../support/link-pair.ts';

test('there is something to hash coarsely with as long as there is a session, another one in each', async (t) => {
  const pair = await startPair(t);
  const hashOf = ({ link }: LinkSide): string => {
    const into = Buffer.alloc(32);
    link.coarseHash?.write(Buffer.from('data'), into, 0);
    return into.toString('hex');
  };
  t.is(pair.alpha.link.coarseHash, null);
  const seen = new Set<string>();
  for (let round = 0; round < 2; round++) {
    const session = await connectPair(pair);
    t.is(hashOf(pair.alpha), hashOf(pair.beta));
    seen.add(hashOf(pair.alpha));
    pair.alpha.link.setWanted(false);
    pair.alpha.link.closeSession(session.alpha, 'TearDown');
    t.is(pair.alpha.link.coarseHash, null, 'ended by this side');
    await pair.beta.seen.expect('down');
    t.is(pair.beta.link.coarseHash, null, 'ended by the other side');
  }
  t.is(seen.size, 2);
});
