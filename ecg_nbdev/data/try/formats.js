// Which reader a dropped file goes to, told by what it holds.
import {readEdf} from './edf.js';
import {lonely, readMatlab} from './matlab.js';
import {RecordError, stem} from './record.js';
import {readTable} from './table.js';
import {readWfdb} from './wfdb.js';

const ELSEWHERE = [ // position, mark, format that ecg-predict reads and this page does not
  [0, '\x89HDF', 'HDF5'], [0, 'PAR1', 'Parquet'], [0, '\x93NUMPY', 'NumPy'], [128, 'DICM', 'DICOM'],
  [0, 'ISHNE1.0', 'ISHNE'], [16, 'SCPECG', 'SCP-ECG'], [0, '%PDF', 'PDF'], [0, '\x89PNG', 'a PNG picture'],
  [0, '\xff\xd8\xff', 'a JPEG picture'], [0, '\xffBIOSEMI', 'BDF'], [0, 'PK\x03\x04', 'an archive'], [0, '<', 'XML']];
const LARGEST = 64 * 2 ** 20; // bytes
const TAKEN = 'give a WFDB pair, CSV, TSV, EDF or a .mat file of CPSC2018, or answer it with ecg-predict';

async function headOf(file) {
  const bytes = new Uint8Array(await file.slice(0, 512).arrayBuffer());
  return [...bytes].map((b) => String.fromCharCode(b)).join('');
}

function check(file, head) {
  if (!file.size) throw new RecordError(file.name, 'is empty: copy it again');
  if (file.size > LARGEST) {
    const told = `holds ${Math.round(file.size / 2 ** 20)} MB, this page takes up to 64`;
    throw new RecordError(file.name, `${told}: cut it, or answer it with ecg-predict`);
  }
  if (head.startsWith('version https://git-lfs')) {
    throw new RecordError(file.name, 'is a Git LFS pointer, not the file itself: fetch it with "git lfs pull"');
  }
  const text = head.replace(/^(\xef\xbb\xbf)?\s*(?=<)/, '');
  const found = ELSEWHERE.find(([at, mark]) => (at ? head : text).startsWith(mark, at));
  if (found) throw new RecordError(file.name, `is ${found[2]}, which this page does not read: ${TAKEN}`);
}

const isHeader = (file) => /\.hea$/i.test(file.name);

// A MATLAB file of level 4: the signal of a WFDB record, of no use without its header.
const isLevel4 = (head) => head.slice(0, 4) === '\x1e\0\0\0' && head.startsWith('val\0', 20);

async function readFirst(files, told) {
  const header = files.find(isHeader), file = header ?? files[0];
  if (!file) throw new RecordError('nothing', 'was given: give a recording');
  const head = await headOf(file);
  check(file, head);
  if (header) return readWfdb(header, (name) => files.find((f) => f.name.toLowerCase() === name.toLowerCase()));
  if (/\.dat$/i.test(file.name)) {
    throw new RecordError(file.name, `is a WFDB signal without its header: give ${stem(file.name)}.hea with it`);
  }
  if (head.startsWith('MATLAB 5.0')) return readMatlab(file);
  if (isLevel4(head)) throw lonely(file.name);
  if (head.startsWith('0       ')) return readEdf(file);
  if (head.includes('\0') && !/^(\xff\xfe|\xfe\xff)/.test(head)) {
    throw new RecordError(file.name, `is in no known format: ${TAKEN}`);
  }
  return readTable(file, told);
}

// The record of the files that were given, the first one of several; `told` is what a person knows of a table.
export async function readFiles(files, told) {
  const record = await readFirst(files, told), count = files.filter(isHeader).length || files.length;
  if (count > 1) record.notes.push(`is the first of ${count} recordings: give the others one by one`);
  return record;
}
