package redact

import "strings"

// fields are what is known of the fields of each kind, beyond what a collector
// says of them itself: above all of the event log's and the journal's, whose names
// are those of others. Names are written without case and without _ and -, so
// that SubjectUserName and subject_user_name are one.
//
// Not in here, and so kept, is what tells of machines and not of people: the
// addresses, ports, names and domains of machines, logon ids, numeric user ids,
// names of services and units. docs/redaction.md says why.
var fields = map[string]map[string]Class{
	"process": table(Account, "user", Command, "commandline", Path, "executable cwd workingdirectory"),
	"disk":    table(Path, "device mountpoint"),
	"eventlog": table(
		Account, `user username userid usersid usersecurityid
			subjectusername subjectusersid subjectaccountname subjectuser
			targetusername targetusersid targetsid targetaccountname targetuser targetaccountsid targetoutboundusername targetserversid
			oldtargetusername newtargetusername membername membersid
			samaccountname accountname account displayname userprincipalname upn
			callerusername callerusersid clientusername clientuserid useraccount serviceaccount logonuser
			sourceusername sourcesid effectiveuser requestoruser loggedonuser parentuser sourceuser initiatoruser
			homedirectoryowner owner ownername ownersid`,
		Command, `commandline parentcommandline processcommandline processcommand servicecommandline taskcommand arguments commandlinearguments
			hostapplication imagepathcommand`,
		Path, `image parentimage originalimage processname newprocessname parentprocessname callerprocessname
			targetfilename sourcefilename currentdirectory workingdirectory homedirectory homepath profilepath scriptpath
			objectname filename filepath path imagepath imagefilename sourceimage targetimage imageloaded applicationpath application relativetargetname`),
	"journal": table(
		Account, `user username userid ruser tousername logname coredumpusername unituser acct`,
		Command, `cmdline commandline coredumpcmdline coredumpenviron objectcmdline environ`,
		Path, `exe executable cwd coredumpexe coredumpcwd coredumproot coredumpfilename objectexe codefile`),
}

// table makes a table of pairs of a class and names.
func table(pairs ...any) map[string]Class {
	t := map[string]Class{}
	for i := 0; i < len(pairs); i += 2 {
		for name := range strings.FieldsSeq(pairs[i+1].(string)) {
			t[name] = pairs[i].(Class)
		}
	}
	return t
}

// maxField bounds the names that are looked up; a longer one is not in a table.
const maxField = 64

// foldField writes the name of a field without case, _ and - into b.
func foldField(b *[maxField]byte, name string) []byte {
	n := 0
	for i := 0; i < len(name) && n < len(b); i++ {
		if c := name[i]; c != '_' && c != '-' {
			b[n] = fold(c)
			n++
		}
	}
	return b[:n]
}

// wellKnown reports whether an account is nobody's: one of the system's, a
// service's or a machine's. It tells nothing of a person, and much to those who
// look for intruders.
func wellKnown(s string) bool {
	if s == "-" || s == "root" || strings.HasPrefix(s, "%%") || strings.HasSuffix(s, "$") {
		return true
	}
	if prefixFold(s, "S-1-") {
		return !prefixFold(s, "S-1-5-21-") && !prefixFold(s, "S-1-12-") // of domains and machines, of Entra
	}
	if i := strings.IndexByte(s, '\\'); i >= 0 {
		switch strings.ToUpper(s[:i]) {
		case "NT AUTHORITY", "NT SERVICE", "NT VIRTUAL MACHINE", "WINDOW MANAGER", "FONT DRIVER HOST", "IIS APPPOOL", "BUILTIN":
			return true
		}
		s = s[i+1:]
	}
	switch strings.ToUpper(s) {
	case "SYSTEM", "LOCAL SERVICE", "NETWORK SERVICE", "ANONYMOUS LOGON", "LOCALSYSTEM", "LOCALSERVICE", "NETWORKSERVICE":
		return true
	}
	return false
}
