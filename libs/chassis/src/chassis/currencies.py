"""The currencies there are: ISO 4217, list one, and how many digits each has after the decimal point.

Source: https://www.six-group.com/dam/download/financial-information/data-center/iso-currrency/lists/list-one.xml,
published 2026-01-01. Entries without a minor unit (gold, special drawing rights, the codes for tests and for "no currency")
are left out: an amount of minor units means nothing in them.
"""

from __future__ import annotations

from collections.abc import Mapping

_BY_EXPONENT: Mapping[int, str] = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW "
        "CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF "
        "IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK "
        "MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP "
        "SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG "
        "YER ZAR ZMW ZWG "
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}

# By code: digits after the decimal point. An amount of 1234 is 12.34 EUR and 1234 JPY.
EXPONENTS: Mapping[str, int] = {code: digits for digits, codes in _BY_EXPONENT.items() for code in codes.split()}
