package redact

import "strings"

// A token is a secret that is known by its prefix, as its issuer documents it.
// The prefix has a _ - or . in it, by which it is found.
type token struct {
	kind, prefix string
	least        int  // characters behind the prefix
	set          byte // which those are
	end          int  // where in the prefix the first _ - or . stands that has two characters before it
	word         bool // the prefix is short: it begins a word, and what follows is random
}

var tokens = func() []token {
	list := []token{
		{kind: "github-token", prefix: "github_pat_", least: 22, set: word},
		{kind: "github-token", prefix: "ghp_", least: 30, set: alnum},
		{kind: "github-token", prefix: "gho_", least: 30, set: alnum},
		{kind: "github-token", prefix: "ghu_", least: 30, set: alnum},
		{kind: "github-token", prefix: "ghs_", least: 30, set: alnum},
		{kind: "github-token", prefix: "ghr_", least: 30, set: alnum},
		{kind: "gitlab-token", prefix: "glpat-", least: 20, set: word | dot},
		{kind: "gitlab-token", prefix: "gloas-", least: 20, set: word},
		{kind: "gitlab-token", prefix: "gldt-", least: 20, set: word},
		{kind: "gitlab-token", prefix: "glrt-", least: 20, set: word | dot},
		{kind: "gitlab-token", prefix: "glptt-", least: 20, set: word},
		{kind: "gitlab-token", prefix: "glcbt-", least: 20, set: word},
		{kind: "gitlab-token", prefix: "glsoat-", least: 20, set: word},
		{kind: "gitlab-token", prefix: "glagent-", least: 20, set: word},
		{kind: "gitlab-token", prefix: "glimt-", least: 20, set: word},
		{kind: "gitlab-token", prefix: "glft-", least: 20, set: word},
		{kind: "slack-token", prefix: "xoxb-", least: 10, set: word},
		{kind: "slack-token", prefix: "xoxp-", least: 10, set: word},
		{kind: "slack-token", prefix: "xoxa-", least: 10, set: word},
		{kind: "slack-token", prefix: "xoxr-", least: 10, set: word},
		{kind: "slack-token", prefix: "xoxs-", least: 10, set: word},
		{kind: "slack-token", prefix: "xoxc-", least: 10, set: word},
		{kind: "slack-token", prefix: "xoxd-", least: 10, set: word | base64},
		{kind: "slack-token", prefix: "xoxe-", least: 10, set: word},
		{kind: "slack-token", prefix: "xoxe.", least: 10, set: word | dot},
		{kind: "slack-token", prefix: "xapp-", least: 10, set: word},
		{kind: "stripe-key", prefix: "sk_live_", least: 16, set: alnum},
		{kind: "stripe-key", prefix: "sk_test_", least: 16, set: alnum},
		{kind: "stripe-key", prefix: "rk_live_", least: 16, set: alnum},
		{kind: "stripe-key", prefix: "rk_test_", least: 16, set: alnum},
		{kind: "stripe-key", prefix: "whsec_", least: 24, set: alnum | base64},
		{kind: "npm-token", prefix: "npm_", least: 36, set: alnum},
		{kind: "pypi-token", prefix: "pypi-AgE", least: 40, set: word},
		{kind: "rubygems-key", prefix: "rubygems_", least: 40, set: hexSet},
		{kind: "anthropic-key", prefix: "sk-ant-", least: 20, set: word},
		{kind: "openai-key", prefix: "sk-", least: 20, set: word, word: true},
		{kind: "huggingface-token", prefix: "hf_", least: 30, set: alnum, word: true},
		{kind: "replicate-token", prefix: "r8_", least: 30, set: alnum, word: true},
		{kind: "groq-key", prefix: "gsk_", least: 40, set: alnum},
		{kind: "perplexity-key", prefix: "pplx-", least: 40, set: alnum},
		{kind: "google-oauth", prefix: "ya29.", least: 20, set: word | dot},
		{kind: "google-oauth", prefix: "GOCSPX-", least: 24, set: word},
		{kind: "digitalocean-token", prefix: "dop_v1_", least: 40, set: hexSet},
		{kind: "digitalocean-token", prefix: "doo_v1_", least: 40, set: hexSet},
		{kind: "digitalocean-token", prefix: "dor_v1_", least: 40, set: hexSet},
		{kind: "sendgrid-key", prefix: "SG.", least: 40, set: word | dot, word: true},
		{kind: "mailgun-key", prefix: "key-", least: 32, set: hexSet, word: true},
		{kind: "sendinblue-key", prefix: "xkeysib-", least: 40, set: word},
		{kind: "shopify-token", prefix: "shpat_", least: 30, set: hexSet},
		{kind: "shopify-token", prefix: "shpss_", least: 30, set: hexSet},
		{kind: "shopify-token", prefix: "shpca_", least: 30, set: hexSet},
		{kind: "shopify-token", prefix: "shppa_", least: 30, set: hexSet},
		{kind: "square-token", prefix: "sq0atp-", least: 22, set: word},
		{kind: "square-token", prefix: "sq0csp-", least: 40, set: word},
		{kind: "linear-key", prefix: "lin_api_", least: 30, set: alnum},
		{kind: "notion-token", prefix: "ntn_", least: 40, set: alnum},
		{kind: "figma-token", prefix: "figd_", least: 30, set: word},
		{kind: "dropbox-token", prefix: "sl.", least: 60, set: word, word: true},
		{kind: "vault-token", prefix: "hvs.", least: 24, set: word},
		{kind: "vault-token", prefix: "hvb.", least: 24, set: word},
		{kind: "vault-token", prefix: "hvr.", least: 24, set: word},
		{kind: "terraform-token", prefix: ".atlasv1.", least: 40, set: word},
		{kind: "grafana-token", prefix: "glsa_", least: 32, set: word},
		{kind: "grafana-token", prefix: "glc_", least: 32, set: alnum | base64},
		{kind: "newrelic-key", prefix: "NRAK-", least: 20, set: alnum},
		{kind: "postman-key", prefix: "PMAK-", least: 24, set: word},
		{kind: "sentry-token", prefix: "sntrys_", least: 30, set: word | base64},
		{kind: "sentry-token", prefix: "sntryu_", least: 30, set: word},
		{kind: "pulumi-token", prefix: "pul-", least: 40, set: hexSet, word: true},
		{kind: "planetscale-token", prefix: "pscale_", least: 30, set: word | dot},
		{kind: "doppler-token", prefix: "dp.pt.", least: 40, set: alnum},
		{kind: "doppler-token", prefix: "dp.st.", least: 40, set: word | dot},
		{kind: "netlify-token", prefix: "nfp_", least: 36, set: alnum},
		{kind: "supabase-key", prefix: "sbp_", least: 40, set: hexSet},
		{kind: "supabase-key", prefix: "sb_secret_", least: 20, set: word},
		{kind: "fly-token", prefix: "fm2_", least: 40, set: alnum | base64},
		{kind: "tailscale-key", prefix: "tskey-", least: 16, set: word},
		{kind: "docker-token", prefix: "dckr_pat_", least: 20, set: word},
		{kind: "docker-token", prefix: "dckr_oat_", least: 20, set: word},
		{kind: "buildkite-token", prefix: "bkua_", least: 36, set: hexSet},
		{kind: "circleci-token", prefix: "CCIPAT_", least: 36, set: word},
		{kind: "heroku-key", prefix: "HRKU-", least: 36, set: word},
		{kind: "contentful-token", prefix: "CFPAT-", least: 40, set: word},
		{kind: "hubspot-token", prefix: "pat-na1-", least: 32, set: word},
		{kind: "hubspot-token", prefix: "pat-eu1-", least: 32, set: word},
		{kind: "age-key", prefix: "AGE-SECRET-KEY-1", least: 40, set: alnum},
		{kind: "mapbox-token", prefix: "sk.eyJ", least: 40, set: word | dot},
		{kind: "prefect-key", prefix: "pnu_", least: 36, set: alnum},
		{kind: "shippo-token", prefix: "shippo_live_", least: 40, set: hexSet},
		{kind: "onepassword-token", prefix: "ops_eyJ", least: 60, set: alnum | base64},
	}
	for i := range list {
		list[i].end = 2 + strings.IndexAny(list[i].prefix[2:], "_-.")
	}
	return list
}()

// tokensBehind are the tokens by the pair of bytes before their trigger.
var tokensBehind = groupsOf(tokens, func(t *token) string { return t.prefix[t.end-2 : t.end] })

// token deals with the _ - or . at i, behind which a token may go on.
func (c *scan) token(i int) int {
	s := c.s
	list := tokensBehind.of(s[i-2], s[i-1])
	for k := range list {
		t := &list[k]
		from := i - t.end
		if from < 0 || !strings.HasPrefix(s[from:], t.prefix) {
			continue
		}
		if t.word && insideWord(s, from) {
			continue
		}
		body := from + len(t.prefix)
		end := trimDots(s, body, span(s, body, t.set))
		if end-body < t.least || t.word && !random(s[body:end]) {
			continue
		}
		c.hit(from, end, t.kind)
		return end
	}
	switch {
	case s[i] == '-' && strings.HasSuffix(s[:i], "PuTTY") && strings.HasPrefix(s[i:], "-User-Key-File-"):
		return c.putty(i)
	case s[i] == '-' && suffixFold(s[:i], "ConvertTo") && prefixFold(s[i:], "-SecureString"):
		return c.secureString(i)
	case s[i] == '_' && suffixFold(s[:i], "secret_access") && prefixFold(s[i:], "_key "): // aws configure set
		return c.next(i+len("_key"), "secret-key")
	}
	return i
}

// insideWord reports whether a word goes on at i. The n of a \n is none.
func insideWord(s string, i int) bool {
	return i > 0 && is(s[i-1], word) && (i == 1 || s[i-2] != '\\' || s[i-1] != 'n' && s[i-1] != 't' && s[i-1] != 'r')
}

// trimDots leaves the stop of a sentence to the sentence.
func trimDots(s string, from, end int) int {
	for end > from && s[end-1] == '.' {
		end--
	}
	return end
}

// upperA deals with keys that begin with A.
func (c *scan) upperA(i int) int {
	s := c.s
	if i+6 > len(s) {
		return i
	}
	switch s[i : i+2] {
	case "AK", "AS", "AB", "AC":
		if kind := s[i : i+4]; kind == "AKIA" || kind == "ASIA" || kind == "ABIA" || kind == "ACCA" {
			end := span(s[:min(len(s), i+21)], i+4, upper|digit)
			if end-i == 20 && (end == len(s) || !is(s[end], lower)) {
				c.hit(i, end, "aws-access-key")
				return end
			}
		}
		if strings.HasPrefix(s[i:], "AKCp") {
			return c.prefixed(i, 4, 60, alnum, "jfrog-key")
		}
	case "AI":
		if strings.HasPrefix(s[i:], "AIza") {
			return c.prefixed(i, 4, 35, word, "google-api-key")
		}
	case "AT":
		switch {
		case strings.HasPrefix(s[i:], "ATATT3"), strings.HasPrefix(s[i:], "ATCTT3"):
			return c.prefixed(i, 6, 40, word|base64, "atlassian-token")
		case strings.HasPrefix(s[i:], "ATBB"):
			return c.prefixed(i, 4, 28, alnum, "bitbucket-token")
		}
	}
	return i
}

// prefixed deals with a token that goes on for least characters behind n.
func (c *scan) prefixed(from, n, least int, set byte, kind string) int {
	end := span(c.s, from+n, set)
	if end-from-n < least {
		return from
	}
	c.hit(from, end, kind)
	return end
}

// azureSecret deals with the ~ of a client secret: xxx8Q~… (Microsoft Entra).
func (c *scan) azureSecret(i int) int {
	s := c.s
	if i < 5 || s[i-1] != 'Q' || !is(s[i-2], digit) || span(s, i-5, word|dot) < i-2 {
		return i
	}
	end := trimDots(s, i, span(s, i, word|dot))
	if end-i < 31 {
		return i
	}
	c.hit(i-5, end, "azure-client-secret")
	return end
}

// jwt deals with eyJ, which begins a JSON Web Token (RFC 7519) and the keys of
// some who put JSON into base64.
func (c *scan) jwt(from int) int {
	s := c.s
	next := from + 3
	if s[from] != 'e' || s[from+1] != 'y' {
		return next
	}
	if !c.base64.has(from) {
		c.base64 = extent{from, span(s, from, word)}
	}
	header := c.base64.to
	if strings.HasPrefix(s[from:], "eyJrIjoi") && header-from >= 40 {
		c.hit(from, span(s, header, word|base64), "grafana-token")
		return header
	}
	if header-from < 13 || header == len(s) || s[header] != '.' {
		return next
	}
	payload := span(s, header+1, word)
	if payload-header < 11 || payload == len(s) || s[payload] != '.' {
		return header
	}
	end := trimDots(s, payload, span(s, payload, word|dot))
	c.hit(from, end, "jwt")
	return max(end, next)
}

// botToken deals with the . in the token of a Discord bot: an id, six characters
// of time, and 27 or more of a key.
func (c *scan) botToken(i int) int {
	s := c.s
	end := span(s, i+8, word)
	if end-i-8 < 27 || span(s, i+1, word) != i+7 {
		return i
	}
	from := i
	for from > 0 && i-from < 28 && is(s[from-1], word) {
		from--
	}
	if i-from < 23 || !random(s[i+8:end]) {
		return i
	}
	c.hit(from, end, "discord-token")
	return end
}
