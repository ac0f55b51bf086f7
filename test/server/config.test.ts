/** Settings: precedence of their sources, and errors that name what is wrong. */
import test from 'ava';
import { readConfig, settingsHelp, UsageError } from '../../server/config.ts';

const noFile = () => {
  throw new Error('no file was named');
};
const file = (value: unknown) => () => JSON.stringify(value);

test('defaults: loopback, info, four data planes', (t) => {
  t.deepEqual(readConfig(['--name', 'alpha', '--data-dir', '/d'], {}, noFile), {
    name: 'alpha',
    dataDirectory: '/d',
    api: { host: '127.0.0.1', port: 7780 },
    logLevel: 'info',
    dataPlanesMax: 4,
    stopOnStdinEnd: false,
    resources: {},
  });
});

test('a flag wins over a variable, a variable over the file, the file over the default', (t) => {
  const values = { name: 'f', dataDir: '/f', api: '127.0.0.1:3', logLevel: 'error', dataPlanes: 3 };
  const environment = {
    LOCKSTEP_NAME: 'e',
    LOCKSTEP_DATA_DIR: '/e',
    LOCKSTEP_API: '127.0.0.1:2',
    LOCKSTEP_LOG_LEVEL: 'warn',
    LOCKSTEP_DATA_PLANES: '2',
  };
  const flags = [
    '--name=a',
    '--data-dir',
    '/a',
    '--api',
    '127.0.0.1:1',
    '--log-level',
    'debug',
    '--data-planes',
    '1',
  ];
  const config = ['--config', 'x.json'];
  const pick = (args: string[], env: Record<string, string>) => {
    const { name, dataDirectory, api, logLevel, dataPlanesMax } = readConfig(args, env, file(values));
    return [name, dataDirectory, api.port, logLevel, dataPlanesMax];
  };
  t.deepEqual(pick(config, {}), ['f', '/f', 3, 'error', 3]);
  t.deepEqual(pick(config, environment), ['e', '/e', 2, 'warn', 2]);
  t.deepEqual(pick([...config, ...flags], environment), ['a', '/a', 1, 'debug', 1]);
  t.deepEqual(pick([], { ...environment, LOCKSTEP_CONFIG: 'x.json' }), ['e', '/e', 2, 'warn', 2]);
});

test('an empty variable is none', (t) => {
  t.is(readConfig(['--data-dir', '/d', '--name', 'a'], { LOCKSTEP_API: '' }, noFile).api.port, 7780);
});

test('the file carries resources, checked like a request', (t) => {
  const args = ['--config', 'x.json', '--data-dir', '/d', '--name', 'a'];
  const config = readConfig(args, {}, file({ resources: { r0: { size: '1GiB' } } }));
  t.deepEqual(config.resources, { r0: { size: '1GiB' } });
  t.throws(() => readConfig(args, {}, file({ resources: { r0: { sise: 1 } } })), {
    instanceOf: UsageError,
    message: /sise/,
  });
  t.throws(() => readConfig(args, {}, file({ resources: { '../x': { size: 1 } } })), {
    instanceOf: UsageError,
  });
});

const wrong: readonly (readonly [string, string[], Record<string, string>, unknown, RegExp])[] = [
  ['no data directory', [], {}, {}, /--data-dir is missing/],
  ['an unknown flag', ['--data-dri', '/d'], {}, {}, /unknown flag --data-dri \(did you mean "data-dir"\?\)/],
  ['a word', ['alpha'], {}, {}, /no argument "alpha"/],
  ['a flag without value', ['--name'], {}, {}, /--name needs a value/],
  [
    'an empty data directory, which would be the current one,',
    ['--data-dir', ''],
    {},
    {},
    /--data-dir needs a value/,
  ],
  ['a flag for a value', ['--name', '--api'], {}, {}, /--name needs a value/],
  ['a bad name', ['--name', 'a/b', '--data-dir', '/d'], {}, {}, /--name: "a\/b" is no name/],
  ['a bad address', ['--api', 'here', '--data-dir', '/d'], {}, {}, /--api: "here" is not HOST:PORT/],
  ['a bad variable', ['--data-dir', '/d'], { LOCKSTEP_API: 'x:99999' }, {}, /LOCKSTEP_API: "x:99999"/],
  ['a bad level', ['--data-dir', '/d', '--log-level', 'inof'], {}, {}, /none of.*did you mean "info"/],
  ['no data planes', ['--data-dir', '/d', '--data-planes', '0'], {}, {}, /--data-planes: "0" is not 1 to/],
  [
    'an unknown key',
    ['--config', 'x.json'],
    {},
    { dataDri: '/d' },
    /x\.json: unknown key "dataDri" \(did you mean "dataDir"\?\)/,
  ],
  ['a key of another type', ['--config', 'x.json'], {}, { dataPlanes: 'two' }, /"dataPlanes" must be 1 to/],
  ['a list for a file', ['--config', 'x.json'], {}, [], /x\.json: it must be an object/],
];
for (const [title, args, environment, content, message] of wrong) {
  test(`${title} is misuse`, (t) => {
    t.throws(() => readConfig(args, environment, file(content)), { instanceOf: UsageError, message });
  });
}

test('a file that is not JSON or cannot be read is misuse, and its text is not repeated', (t) => {
  const args = ['--config', 'x.json'];
  const error = t.throws(() => readConfig(args, {}, () => '{"secret": "hush'), { instanceOf: UsageError });
  t.false(error.message.includes('hush'));
  t.throws(() => readConfig(args, {}, noFile), { instanceOf: UsageError, message: /no file was named/ });
});

test('help names every flag with its variable', (t) => {
  const text = settingsHelp().join('\n');
  for (const name of [
    '--name',
    '--data-dir',
    '--api',
    '--config',
    '--log-level',
    '--data-planes',
    'LOCKSTEP_DATA_DIR',
  ]) {
    t.true(text.includes(name), name);
  }
});
