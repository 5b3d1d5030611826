//! Minor units of currencies, by ISO 4217: list one, as published on 2026-01-01.
//!
//! Amounts are whole numbers of minor units everywhere. Who shows one divides it by ten to the
//! power of [`minor_units`], whatever another table, such as a browser's, has for the currency.

/// How many decimal places an amount in this currency has: 2 for EUR, whose minor unit is the
/// cent, and 0 for JPY.
///
/// 0 for units without a minor one, such as gold. 2, as most currencies have, for a code that is
/// not in the list.
pub fn minor_units(currency: &str) -> u8 {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX"
        | "UYI" | "VND" | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        // Metals, units of account and codes for testing: "N.A." in the list.
        "XAG" | "XAU" | "XBA" | "XBB" | "XBC" | "XBD" | "XDR" | "XPD" | "XPT" | "XSU" | "XTS"
        | "XUA" | "XXX" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "CLF" | "UYW" => 4,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole list, by minor units; -1 stands for "N.A.".
    const LIST_ONE: [(i8, &str); 5] = [
        (-1, "XAG XAU XBA XBB XBC XBD XDR XPD XPT XSU XTS XUA XXX"),
        (
            0,
            "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
        ),
        (
            2,
            "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN \
             BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD \
             FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW \
             KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR \
             MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG \
             SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD \
             USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG",
        ),
        (3, "BHD IQD JOD KWD LYD OMR TND"),
        (4, "CLF UYW"),
    ];

    #[test]
    fn every_currency_of_iso_4217_has_its_minor_units() {
        let mut count = 0;
        for (units, codes) in LIST_ONE {
            for code in codes.split(' ') {
                count += 1;
                assert_eq!(i8::try_from(minor_units(code)), Ok(units.max(0)), "{code}");
            }
        }
        assert_eq!(count, 178);
        for unknown in ["", "ZZZ", "eur", "EURO"] {
            assert_eq!(minor_units(unknown), 2, "{unknown}");
        }
    }
}
