/** Certificates made for one test run. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runTool } from './tools.ts';

export interface Certificate {
  readonly certPem: string;
  readonly keyPem: string;
}

/** A self-signed authority of that name. */
export async function createAuthority(directory: string, name: string): Promise<Certificate> {
  await openssl([
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
    ...[
      '-subj',
      `/CN=${name}`,
      '-keyout',
      join(directory, `${name}.key`),
      '-out',
      join(directory, `${name}.pem`),
    ],
  ]);
  return readCertificate(directory, name);
}

/** Signed by the authority of that name in the same directory; valid for localhost and 127.0.0.1. */
export async function createCertificate(
  directory: string,
  authority: string,
  name: string,
): Promise<Certificate> {
  const file = (suffix: string): string => join(directory, `${name}.${suffix}`);
  await openssl([
    ...['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
    ...['-subj', `/CN=${name}`, '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'],
    ...['-keyout', file('key'), '-out', file('csr')],
  ]);
  await openssl([
    ...['x509', '-req', '-in', file('csr'), '-days', '2', '-copy_extensions', 'copy', '-out', file('pem')],
    ...['-CA', join(directory, `${authority}.pem`), '-CAkey', join(directory, `${authority}.key`)],
  ]);
  return readCertificate(directory, name);
}

async function readCertificate(directory: string, name: string): Promise<Certificate> {
  const [certPem, keyPem] = await Promise.all([
    readFile(join(directory, `${name}.pem`), 'utf8'),
    readFile(join(directory, `${name}.key`), 'utf8'),
  ]);
  return { certPem, keyPem };
}

async function openssl(args: readonly string[]): Promise<void> {
  const { status, stderr } = await runTool('openssl', args);
  if (status !== 0) throw new Error(`openssl ${args.join(' ')}: ${stderr}`);
}
