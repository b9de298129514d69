//! Which slot of a Cluster a key lies in: pure.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model>

/// How many slots a Cluster has.
pub(crate) const SLOTS: u16 = 16_384;

/// The slot of a key.
pub(crate) fn slot(key: &[u8]) -> u16 {
    crc16(hashed(key)) % SLOTS
}

/// The part of a key that says where it lies: what stands in its first braces, unless that is nothing.
fn hashed(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else {
        return key;
    };
    let behind = &key[open + 1..];
    match behind.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(close) => &behind[..close],
    }
}

/// CRC16 in the form called XMODEM: the polynomial 0x1021, from 0, nothing reflected.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < table.len() {
        let mut crc = (at as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slots_are_those_that_redis_tells() {
        assert_eq!(crc16(b"123456789"), 0x31c3, "the check value of XMODEM");
        for (key, expected) in [
            ("", 0),
            ("foo", 12_182),
            ("cache:product-service:/products", 5_918),
            ("{user1000}.following", 3_443),
            ("{user1000}.followers", 3_443),
            ("foo{}{bar}", 8_363),
            ("foo{{bar}}zap", 4_015),
            ("foo{bar}{zap}", 5_061),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    proptest! {
        #[test]
        fn a_keys_companions_lie_in_its_slot(key in "[^{}]{1,64}", before in "[^{}]{0,16}", behind in ".{0,16}") {
            let companion = format!("{before}{{{key}}}{behind}");
            prop_assert_eq!(slot(companion.as_bytes()), slot(key.as_bytes()));
            prop_assert!(slot(key.as_bytes()) < SLOTS);
        }

        #[test]
        fn any_bytes_have_a_slot(key in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(slot(&key) < SLOTS);
        }
    }
}
