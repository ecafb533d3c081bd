//! Long prompts: tokens laid into chunks that the text encoder reads one by one.

/// How many tokens a comma may stand before the end of a chunk for what follows it to move to the next chunk.
const COMMA_REACH: usize = 20;

/// One thing that takes room in a chunk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Unit {
    /// A token and its weight.
    Token(u32, f32),
    /// A textual inversion by its number, how many vectors it has, and its weight.
    Embedding(usize, usize, f32),
    /// The end of a chunk.
    Break,
}

/// What the encoder reads at once, without the start and end tokens around it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Chunk {
    /// Token ids; 0 where vectors of a textual inversion stand.
    pub(crate) ids: Vec<u32>,
    /// The weight of each.
    pub(crate) weights: Vec<f32>,
    /// Textual inversions: the position of the first vector, which one it is, and how many of its vectors there are.
    pub(crate) embeddings: Vec<(usize, usize, usize)>,
}

impl Chunk {
    fn push(&mut self, id: u32, weight: f32) {
        self.ids.push(id);
        self.weights.push(weight);
    }

    fn embed(&mut self, which: usize, vectors: usize, weight: f32) {
        self.embeddings.push((self.ids.len(), which, vectors));
        for _ in 0..vectors {
            self.push(0, weight);
        }
    }

    /// Cuts off everything from `at` on, which no textual inversion may span.
    fn split_off(&mut self, at: usize) -> Self {
        let kept = self.embeddings.iter().filter(|(position, ..)| *position < at).count();
        let embeddings = self.embeddings.split_off(kept);
        Self {
            ids: self.ids.split_off(at),
            weights: self.weights.split_off(at),
            embeddings: embeddings.into_iter().map(|(from, which, n)| (from - at, which, n)).collect(),
        }
    }
}

/// Lays units into chunks of at most `room` tokens, at least one chunk, as AUTOMATIC1111's web UI does it: a full chunk
/// gives what follows its last comma to the next one when that is at most 20 tokens; a textual inversion is never torn; a
/// break ends the chunk, also an empty one.
pub(crate) fn chunks(units: &[Unit], room: usize, comma: Option<u32>) -> Vec<Chunk> {
    let mut done: Vec<Chunk> = Vec::new();
    let mut chunk = Chunk::default();
    // Behind the last comma of the chunk.
    let mut behind_comma = None;
    for unit in units {
        if let Unit::Token(id, _) = unit
            && Some(*id) == comma
        {
            behind_comma = Some(chunk.ids.len() + 1);
        } else if chunk.ids.len() == room
            && *unit != Unit::Break
            && let Some(at) = behind_comma.take_if(|at| room + 1 - *at <= COMMA_REACH)
        {
            let moved = chunk.split_off(at);
            done.push(std::mem::replace(&mut chunk, moved));
        }
        let needed = match unit {
            Unit::Break => room + 1,
            Unit::Embedding(_, vectors, _) => *vectors,
            Unit::Token(..) => 1,
        };
        if chunk.ids.len() + needed > room {
            done.push(std::mem::take(&mut chunk));
            behind_comma = None;
        }
        match *unit {
            Unit::Token(id, weight) => chunk.push(id, weight),
            Unit::Embedding(which, vectors, weight) => chunk.embed(which, vectors, weight),
            Unit::Break => {}
        }
    }
    if !chunk.ids.is_empty() || done.is_empty() {
        done.push(chunk);
    }
    done
}

/// One chunk of whatever fits, cut where the room ends, and how many tokens did not fit: what diffusers does.
pub(crate) fn single_chunk(units: &[Unit], room: usize) -> (Chunk, usize) {
    let mut chunk = Chunk::default();
    let mut total = 0;
    for unit in units {
        let left = room.saturating_sub(total);
        match *unit {
            Unit::Token(id, weight) if left > 0 => chunk.push(id, weight),
            Unit::Embedding(which, vectors, weight) if left > 0 => {
                chunk.embed(which, vectors.min(left), weight);
            }
            _ => {}
        }
        total += match unit {
            Unit::Token(..) => 1,
            Unit::Embedding(_, vectors, _) => *vectors,
            Unit::Break => 0,
        };
    }
    (chunk, total.saturating_sub(room))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMMA: u32 = 9;

    fn tokens(ids: &[u32]) -> Vec<Unit> {
        ids.iter().map(|id| Unit::Token(*id, 1.0)).collect()
    }

    fn laid(units: &[Unit], room: usize) -> Vec<Vec<u32>> {
        chunks(units, room, Some(COMMA)).into_iter().map(|chunk| chunk.ids).collect()
    }

    #[test]
    fn chunks_end_where_they_are_full_or_broken() {
        assert_eq!(laid(&[], 3), [Vec::<u32>::new()]);
        assert_eq!(laid(&tokens(&[1, 2, 3]), 3), [[1, 2, 3]]);
        assert_eq!(laid(&tokens(&[1, 2, 3, 4]), 3), [vec![1, 2, 3], vec![4]]);
        let broken = [tokens(&[1]), vec![Unit::Break, Unit::Break], tokens(&[2])].concat();
        assert_eq!(laid(&broken, 3), [vec![1], vec![], vec![2]]);
        assert_eq!(laid(&[tokens(&[1]), vec![Unit::Break]].concat(), 3), [vec![1]]);
        assert_eq!(laid(&[vec![Unit::Break], tokens(&[1])].concat(), 3), [vec![], vec![1]]);
    }

    #[test]
    fn what_follows_a_near_comma_moves_along() {
        assert_eq!(laid(&tokens(&[1, COMMA, 2, 3, 4]), 4), [vec![1, COMMA], vec![2, 3, 4]]);
        assert_eq!(laid(&tokens(&[1, 2, 3, COMMA, 4]), 4), [vec![1, 2, 3, COMMA], vec![4]]);
        // A comma that has no room itself begins the next chunk and moves nothing.
        assert_eq!(laid(&tokens(&[1, COMMA, 2, 3, COMMA, 4]), 4), [vec![1, COMMA, 2, 3], vec![COMMA, 4]]);
        // The comma is one of the 20: 19 tokens behind it go along, 20 do not.
        let row = |after: u32| [vec![1; 10], vec![COMMA], vec![2; after as usize], vec![3]].concat();
        assert_eq!(laid(&tokens(&row(19)), 30), [row(0)[..11].to_vec(), [vec![2; 19], vec![3]].concat()]);
        let full = laid(&tokens(&row(20)), 31);
        assert_eq!(full, [row(20)[..31].to_vec(), vec![3]]);
    }

    #[test]
    fn textual_inversions_stay_whole() {
        let style = Unit::Embedding(5, 3, 1.5);
        let found = chunks(&[tokens(&[1, 2]), vec![style]].concat(), 4, None);
        assert_eq!(found[0].ids, [1, 2]);
        let whole = Chunk { ids: vec![0; 3], weights: vec![1.5; 3], embeddings: vec![(0, 5, 3)] };
        assert_eq!(found[1], whole);
        // Moved behind a comma, it keeps its place among the others.
        let units = [tokens(&[COMMA, 1]), vec![style], tokens(&[2, 3])].concat();
        let found = chunks(&units, 5, Some(COMMA));
        assert_eq!(found[0].ids, [COMMA]);
        assert_eq!(found[1].ids, [1, 0, 0, 0, 2]);
        assert_eq!(found[1].embeddings, [(1, 5, 3)]);
        // Without chunks it is cut like everything else.
        let (chunk, dropped) = single_chunk(&units, 4);
        assert_eq!((chunk.ids, chunk.embeddings, dropped), (vec![COMMA, 1, 0, 0], vec![(2, 5, 2)], 3));
    }

    fn unit() -> impl Strategy<Value = Unit> {
        prop_oneof![
            8 => (1..COMMA, 0.0..2f32).prop_map(|(id, weight)| Unit::Token(id, weight)),
            2 => Just(Unit::Token(COMMA, 1.0)),
            1 => (0..4usize, 1..=5usize).prop_map(|(which, vectors)| Unit::Embedding(which, vectors, 1.0)),
            1 => Just(Unit::Break),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_lost_torn_or_moved(units in prop::collection::vec(unit(), 0..120), room in 5..40usize) {
            let found = chunks(&units, room, Some(COMMA));
            let mut again = Vec::new();
            for chunk in &found {
                prop_assert!(chunk.ids.len() <= room && chunk.ids.len() == chunk.weights.len());
                let mut at = 0;
                while at < chunk.ids.len() {
                    match chunk.embeddings.iter().find(|(position, ..)| *position == at) {
                        Some((_, which, vectors)) => {
                            again.push(Unit::Embedding(*which, *vectors, chunk.weights[at]));
                            at += vectors;
                        }
                        None => {
                            again.push(Unit::Token(chunk.ids[at], chunk.weights[at]));
                            at += 1;
                        }
                    }
                }
            }
            let wanted: Vec<_> = units.into_iter().filter(|unit| *unit != Unit::Break).collect();
            prop_assert_eq!(again, wanted);
        }
    }
}
