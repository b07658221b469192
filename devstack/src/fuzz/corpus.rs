//! `Corpus`: good and odd inputs that are kept in the tree, and what becomes of them by a recipe of changes.

use std::fs;
use std::path::Path;

use crate::bedrock::with_crcs_mended;

/// Which input to take, what to do to it, and bytes to do it with. Made at random by the fuzzer, which can shrink it.
pub type Recipe = (u16, Vec<(u8, u32, u32)>, Vec<u8>);

/// Most changes to one input: with more, nothing of it is left.
const MAX_CHANGES: usize = 6;
/// Most bytes of an input, so that repeats of repeats do not grow without bound.
const MAX_BYTES: usize = 300_000;

/// What formats are made of, and what has broken parsers before.
const WORDS: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"\\ud800",
    b"\\u0000",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\xef\xbb\xbf",
    b"\xf0\x9f\xa6\x8a",
    b"18446744073709551616",
    b"IDAT",
    b"VP8 ",
    b"\xff\xd8",
    b"finish_reasons",
];

/// Inputs of one target.
#[derive(Debug)]
pub struct Corpus {
    inputs: Vec<Vec<u8>>,
}

impl Corpus {
    /// Reads `{tests_dir}/corpus/{target}`, in the order of the names.
    ///
    /// # Panics
    /// When the folder is missing or empty.
    pub fn open(tests_dir: &Path, target: &str) -> Self {
        let folder = tests_dir.join("corpus").join(target);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut paths: Vec<_> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        paths.sort();
        let inputs: Vec<_> = paths.iter().filter_map(|path| fs::read(path).ok()).collect();
        assert!(!inputs.is_empty(), "{} is empty", folder.display());
        Self { inputs }
    }

    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    pub fn inputs(&self) -> impl Iterator<Item = &[u8]> {
        self.inputs.iter().map(Vec::as_slice)
    }

    /// Makes an input: one of the corpus with a few changes; of one in sixteen recipes, its bytes as they are.
    pub fn input(&self, (which, changes, bytes): &Recipe) -> Vec<u8> {
        if which % 16 == 15 {
            return bytes.clone();
        }
        let mut input = self.pick(usize::from(*which)).to_vec();
        for change in changes.iter().take(1 + usize::from(which >> 8) % MAX_CHANGES) {
            self.change(&mut input, *change, bytes);
            input.truncate(MAX_BYTES);
        }
        // A wrong checksum is found at once, and then nothing behind it is reached.
        if which % 4 == 0 { input } else { with_crcs_mended(input) }
    }

    fn pick(&self, number: usize) -> &[u8] {
        &self.inputs[number % self.inputs.len()]
    }

    fn change(&self, input: &mut Vec<u8>, (kind, a, b): (u8, u32, u32), bytes: &[u8]) {
        let (at, other) = (position(a, input.len()), position(b, input.len()));
        let (from, to) = (at.min(other), at.max(other));
        let near = to.min(from + 64);
        match kind % 12 {
            0 if at < input.len() => input[at] ^= 1 << (b % 8),
            1 if at < input.len() => input[at] = b.to_le_bytes()[0],
            2 => input.truncate(at),
            3 => drop(input.drain(from..near)),
            4 => drop(input.drain(from..to)),
            5 => insert(input, at, bytes),
            6 => insert(input, at, WORDS[b as usize % WORDS.len()]),
            7 if near <= input.len() => {
                let word = WORDS[b as usize % WORDS.len()];
                input.splice(from..near.min(from + word.len()), word.iter().copied());
            }
            8 => {
                let copied = input[from..near].repeat(1 + b as usize % 300);
                insert(input, at, &copied);
            }
            9 => {
                let word = WORDS[b as usize % WORDS.len()].repeat(1 + a as usize % 5000);
                insert(input, at, &word);
            }
            10 => {
                let rest = self.pick(b as usize);
                input.truncate(at);
                input.extend_from_slice(&rest[position(a, rest.len())..]);
            }
            _ => {
                // A number in the middle of a header, large or small.
                for (offset, byte) in [b.to_be_bytes(), b.to_le_bytes()][a as usize % 2].into_iter().enumerate() {
                    if let Some(place) = input.get_mut(at + offset) {
                        *place = byte;
                    }
                }
            }
        }
    }
}

fn position(number: u32, len: usize) -> usize {
    number as usize % (len + 1)
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    input.splice(at..at, bytes.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(inputs: &[&[u8]]) -> Corpus {
        Corpus { inputs: inputs.iter().map(|input| input.to_vec()).collect() }
    }

    #[test]
    fn every_change_of_anything_is_an_input() {
        let corpus = corpus(&[b"", b"{\"v\":1}", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", &[7; 300]]);
        for kind in 0..=u8::MAX {
            for which in [0, 1, 2, 3, 15, 257, 1027, u16::MAX] {
                for number in [0, 1, 5, 64, 1000, u32::MAX] {
                    let recipe = (which, vec![(kind, number, u32::MAX - number); 7], vec![1, 2, 3]);
                    assert!(corpus.input(&recipe).len() <= MAX_BYTES + 20_000);
                }
            }
        }
    }

    #[test]
    fn the_checksums_of_a_changed_picture_are_right_again() {
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        crate::bedrock::push_chunk(&mut png, b"IHDR", &[1, 2, 3]);
        let sound = png.clone();
        png[17] = 9;
        assert_ne!(with_crcs_mended(png.clone()), png, "the checksum was wrong");
        let mut expected = b"\x89PNG\r\n\x1a\n".to_vec();
        crate::bedrock::push_chunk(&mut expected, b"IHDR", &[1, 9, 3]);
        assert_eq!(with_crcs_mended(png), expected);
        assert_eq!(with_crcs_mended(sound.clone()), sound);
        assert_eq!(with_crcs_mended(b"no picture".to_vec()), b"no picture");
    }
}
