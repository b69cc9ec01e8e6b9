"""The words that the rules of tts/text/words.py know by heart."""

from __future__ import annotations


def _each(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# With a point, before a name; never the end of a sentence.
TITLES = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Messrs": "Messrs", "Prof": "Professor", "Rev": "Reverend",
    "Gen": "General", "Col": "Colonel", "Capt": "Captain", "Lt": "Lieutenant", "Sgt": "Sergeant", "Cpl": "Corporal",
    "Maj": "Major", "Cmdr": "Commander", "Adm": "Admiral", "Gov": "Governor", "Sen": "Senator",
    "Rep": "Representative", "Pres": "President", "Hon": "Honorable", "Mt": "Mount", "Ft": "Fort",
    "Supt": "Superintendent", "Insp": "Inspector",
}  # fmt: skip
# Anywhere in a sentence; the point belongs to the abbreviation.
INNER = {
    "v": "versus", "cf": "compare", "approx": "approximately", "dept": "department",
    "govt": "government", "misc": "miscellaneous", "ca": "circa", "viz": "namely", "eds": "editors", "intl": "international",
    "a.k.a": "also known as", "i.e": "that is", "e.g": "for example", "et al": "et al",
}  # fmt: skip
# Only before a number, since some are words too.
COUNTED = {
    "fig": "figure", "figs": "figures", "eq": "equation", "ch": "chapter", "vol": "volume", "vols": "volumes", "pp": "pages",
    "p": "page", "apt": "apartment", "max": "maximum", "min": "minimum", "avg": "average", "est": "established",
    "ext": "extension", "tel": "telephone", "sec": "section",
}  # fmt: skip
# These may end a sentence, and then the point stays.
LAST = {
    "etc": "et cetera", "Etc": "Et cetera", "Inc": "Incorporated", "Corp": "Corporation", "Ltd": "Limited", "Co": "Company",
    "Bros": "Brothers", "Jr": "Junior", "Sr": "Senior", "Esq": "Esquire", "Ave": "Avenue", "Blvd": "Boulevard",
    "Rd": "Road", "Ln": "Lane", "Hwy": "Highway", "Pkwy": "Parkway", "Sq": "Square", "St": "Street", "Dr": "Drive",
}  # fmt: skip
# Said letter by letter, though some could be said as a word.
SPELLED = _each(
    "FBI CIA USA UK EU BBC CNN IBM UCLA ESPN ISBN ASMR SQL NBA NFL MLB NHL ABC NBC CBS HBO IRS CEO CFO CTO COO DNA "
    "RNA HIV ATM GPS URL API CPU GPU USB TV PC AI UFO VIP IQ FAQ PDF HR PR DJ MC AC DC UAE IMF EPA FAA FDA CDC WHO "
    "ICU EMT ADHD ADA AMA LCD GDP IPO NGO OCD PTA RSVP SEC SOS SUV ID US UN LA IOU DIY ETA GMO HMO IPA IRA NYU NYC MIT "
    "NYPD LAPD AOL EP LP OED ABS UV IUD IVF UPS ACLU AFL CIO ICBM DOA EKG ECG EEG MRI ECB IOC UI UX OS AR VR ML IP IO "
    "ISO OECD HIIT UCSF UEFI IUCN"
)
# Said as a word, with a capital.
SAID = _each(
    "NASA NATO UNESCO UNICEF OPEC AIDS COVID ASCII JPEG RAM ROM SIM PIN NAFTA NASDAQ FIFA UEFA OSHA POTUS SCOTUS "
    "FLOTUS SWAT YOLO CAPTCHA BIOS SONAR RADAR LASER SCUBA AWOL ZIP LAN WAN SARS MERS HIPAA FEMA NORAD NIMBY FOMO "
    "ASAP LEGO IKEA MOMA PETA PISA TEFL IELTS TOEFL BAFTA DARPA MIDI WYSIWYG SPAM GIF BASIC COBOL FORTRAN ANOVA "
    "BREXIT"
)
SPECIAL = {
    "WWI": "World War one", "WWII": "World War two", "IEEE": "I triple E", "NAACP": "N double A C P", "NCAA": "N C double A",
    "AAA": "triple A", "OK": "okay",
    "JPEG": "jay peg", "PhD": "P H D", "PhDs": "P H D's", "MBA": "M B A", "w/": "with", "w/o": "without",
    "b/c": "because", "COVID": "Covid", "NOAA": "Noah", "MSc": "M S C", "BSc": "B S C",
}  # fmt: skip
# Short words that people write in capitals for emphasis.
SHORT = _each(
    "A AGO AH ALL AM AN AND ANY ARE AS ASK AT BAD BE BED BIG BOX BOY BUS BUT BY BYE CAN CAR CAT CUT DAD DAY DID DIE "
    "DO DOG DRY EAT END EYE FAN FAR FEW FIT FLY FOR FUN GET GIRL GO GOD GOT GUY HA HAD HAS HE HER HEY HI HIM HIS HIT "
    "HOT HOW I ICE IF IN IS IT ITS JOB KEY KID LAW LAY LED LEG LET LIE LOT LOW MAD MAN MAP MAY ME MEN MOM MR MY NEW "
    "NO NOR NOT NOW OF OFF OH OIL OLD ON ONE OR OUR OUT OW OWN PAY PEN PUT RAN RAW RED ROW RUN SAD SAW SAY SEA SEE "
    "SET SHE SIT SIX SKY SO SON SUN TAX TEA TEN THE TO TOO TOP TRY TWO UH UM UP USE VAN WAR WAS WAY WE WET WHY WIN "
    "WON YES YET YOU"
)
# What is counted in Roman numerals: "Chapter IV" is chapter four.
PARTS = _each(
    "Chapter Act Part Volume Book Section Article Appendix Type Phase Stage Class Level Grade Title Table Figure "
    "Episode War Scene Canto Verse Tier Category Round Number Step Season Symphony Opus Fantasy Rocky Rambo Bowl "
    "Apollo Gemini Mark Saturn Olympics Olympiad Group Unit Lesson Exercise Amendment Corps Vatican Schedule Division "
    "Version Factor Psalm Sonnet"
)
# Names whose bearers are counted: "Henry VIII" is Henry the eighth.
REGNAL = _each(
    "Henry Louis George Edward William Charles James Richard Elizabeth Mary John Paul Pius Benedict Leo Gregory "
    "Clement Innocent Philip Ferdinand Francis Frederick Napoleon Nicholas Alexander Peter Catherine Ivan Ramesses "
    "Rameses Ptolemy Cleopatra Darius Xerxes Otto Conrad Maximilian Leopold Christian Gustav Gustavus Oscar Haakon "
    "Olaf Harald Umberto Emmanuel Alfonso Carlos Felipe Pedro Manuel Margrethe Wilhelm Friedrich Constantine "
    "Justinian Theodosius Urban Boniface Sixtus Julius Adrian Eugene Malcolm Robert David Stephen Casimir Baldwin "
    "Suleiman Mehmed Murad Selim Thutmose Amenhotep Seti Antiochus Isabella Anne Victoria Carl Karl Joseph Franz "
    "Louis-Philippe Philippe Thomas Artaxerxes Celestine Martin"
)
# Consonants that may begin an English word, and those that may end one (before an s).
ONSETS = _each(
    " B BL BR C CH CHR CL CR D DR DW F FL FR G GH GL GN GR H J K KH KL KN KR L M N P PH PHR PL PR PS Q QU R RH S SC "
    "SCH SCR SH SHR SK SL SM SN SP SPH SPL SPR SQ ST STR SV SW T TH THR TR TS TW V W WH WR X Z"
)
CODAS = _each(
    "B C D F G H K L M N P R S T V W X Z BB DD FF GG LL MM NN PP RR SS TT ZZ BT CK CH CT CHT DT FT GH GHT GN HM HN LB "
    "LD LF LK LM LN LP LPH LT LV LCH LSH LTH LTZ LFTH MB MN MP MPH MPT MPST NC NCH NCT ND NG NK NS NST NT NX NZ NTH NGTH NGST "
    "NTZ PH PT PTH PSE RB RC RCH RD RF RG RGH RK RL RLD RM RMTH RN RND RNT RP RPH RSH RST RT RTH RTZ RV SC SCH SH SK SM SP ST "
    "TCH TH THM TZ DST DTH FTH GTH WD WK WL WN WTH XT XTH"
)
# Words that begin sentences and hardly ever a name: after them an abbreviation's point was a full stop.
OPENERS = _each(
    "The He She It They We I But And In A An This That These Those There When While Then His Her Our Your Their My You If "
    "What Who Where Why How On At For From As So Yet Or Not No Yes Now Today Yesterday Later After Before Since"
)
