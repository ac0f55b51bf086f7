import tseslint from 'typescript-eslint';

/** Arrows of the folder map, checked here and again by test/architecture.test.ts. */
const forbid = (...patterns) => [
  'error',
  {
    patterns: patterns.map((regex) => ({
      regex,
      message: 'This import goes against the folder map in ARCHITECTURE.md.',
    })),
  },
];

export default tseslint.config(
  { ignores: ['node_modules', '.lockstep', '.cache', 'dist', 'docs'] },
  ...tseslint.configs.recommendedTypeChecked,
  {
    files: ['**/*.ts'],
    languageOptions: { parserOptions: { project: './tsconfig.json', tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      eqeqeq: 'error',
    },
  },
  {
    files: ['test/**/*.ts'],
    // ava's tests return promises that its runner awaits.
    rules: { '@typescript-eslint/no-floating-promises': ['error', { ignoreVoid: true }] },
  },
  {
    files: ['nbd/**/*.ts'],
    rules: { 'no-restricted-imports': forbid('/(replicator|server|scripts|test)/') },
  },
  {
    files: ['replicator/core/**/*.ts'],
    rules: {
      'no-restricted-imports': forbid(
        '^node:',
        '^[^.]',
        '/(server|scripts|test|wire|shell)/',
        '/nbd/(?!block-device)',
      ),
      'no-restricted-globals': [
        'error',
        'Buffer',
        'setTimeout',
        'setInterval',
        'setImmediate',
        'process',
        'Date',
        'performance',
      ],
      'no-restricted-syntax': [
        'error',
        {
          selector: "MemberExpression[object.name='Math'][property.name='random']",
          message: 'No randomness in the core.',
        },
        {
          selector: "AwaitExpression, NewExpression[callee.name='Promise']",
          message: 'No promises in the core.',
        },
      ],
    },
  },
  {
    files: ['replicator/wire/**/*.ts'],
    rules: { 'no-restricted-imports': forbid('/(server|scripts|test|shell)/', '/nbd/') },
  },
  {
    files: ['replicator/shell/**/*.ts'],
    rules: { 'no-restricted-imports': forbid('/(server|scripts|test)/', '/nbd/(?!block-device)') },
  },
  { files: ['**/*.js'], ...tseslint.configs.disableTypeChecked },
);
