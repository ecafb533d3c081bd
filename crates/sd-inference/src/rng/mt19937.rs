//! The Mersenne Twister with 32-bit words, seeded as torch seeds it.

/// Words of state.
const N: usize = 624;
/// Distance of the word that is mixed in.
const M: usize = 397;

/// MT19937 (Matsumoto and Nishimura, 1998).
///
/// torch takes a 64-bit seed and keeps its low 32 bits (`at::mt19937::init_with_uint32`), so seeds that differ only
/// above give the same words.
#[derive(Clone)]
pub struct Mt19937 {
    state: [u32; N],
    next: usize,
}

impl Mt19937 {
    /// The generator for `seed`.
    pub fn new(seed: u64) -> Self {
        let mut state = [0u32; N];
        state[0] = seed as u32;
        for i in 1..N {
            let previous = state[i - 1];
            state[i] = (previous ^ (previous >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: N }
    }

    /// The next word.
    pub fn next_u32(&mut self) -> u32 {
        if self.next == N {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// The next two words, the first one on top (`CPUGeneratorImpl::random64`).
    pub fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        high << 32 | u64::from(self.next_u32())
    }

    fn refill(&mut self) {
        for i in 0..N {
            let joined = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (joined >> 1) ^ twist;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The C++ standard, [rand.predef]: the 10000th word of a default-constructed std::mt19937.
    #[test]
    fn the_ten_thousandth_word_is_the_published_one() {
        let mut words = Mt19937::new(5489);
        for _ in 0..9999 {
            words.next_u32();
        }
        assert_eq!(words.next_u32(), 4_123_659_995);
    }

    #[test]
    fn only_the_low_half_of_a_seed_counts() {
        assert_eq!(Mt19937::new(7).next_u64(), Mt19937::new(7 | 3 << 40).next_u64());
    }
}
