-- What wixl 0.101 cannot say, one statement a line, for msibuild.

-- Types of custom actions: 0x100 runs at rollback, 0x2000 keeps the command line
-- out of the log.
UPDATE `CustomAction` SET `Type` = 3410 WHERE `Action` = 'UndoService'
UPDATE `CustomAction` SET `Type` = 3410 WHERE `Action` = 'RestoreService'
UPDATE `CustomAction` SET `Type` = 11282 WHERE `Action` = 'Enroll'

-- An upgrade leaves the service registered.
UPDATE `InstallExecuteSequence` SET `Condition` = 'NOT UPGRADINGPRODUCTCODE' WHERE `Action` = 'DeleteServices'

-- A build of the same number replaces the other, too: 0x301 is from this number to
-- this number, with the features that it had.
INSERT INTO `Upgrade` (`UpgradeCode`, `VersionMin`, `VersionMax`, `Attributes`, `ActionProperty`) VALUES ('{E641B9AC-16E3-47D7-B3FA-F40D74C33B3A}', '@NUMBER@', '@NUMBER@', 769, 'REA_SAME_DETECTED')

-- Properties that a person may give, and those that Windows finds out.
UPDATE `Property` SET `Value` = 'WIX_DOWNGRADE_DETECTED;WIX_UPGRADE_DETECTED;REA_SAME_DETECTED;REA_SERVER;REA_TOKEN;REA_ENDPOINT;REA_PURGE;REA_SERVICE;REA_ENROLLED' WHERE `Property` = 'SecureCustomProperties'

-- REA_ENROLLED is the machine's certificate, if it has one.
CREATE TABLE `DrLocator` (`Signature_` CHAR(72) NOT NULL, `Parent` CHAR(72), `Path` CHAR(255), `Depth` INT PRIMARY KEY `Signature_`, `Parent`, `Path`)
INSERT INTO `Signature` (`Signature`, `FileName`) VALUES ('Pair', 'agent.pem')
INSERT INTO `DrLocator` (`Signature_`, `Path`, `Depth`) VALUES ('Pair', '[CommonAppDataFolder]REA\identity', 0)
INSERT INTO `AppSearch` (`Property`, `Signature_`) VALUES ('REA_ENROLLED', 'Pair')

-- A program with a version says it here, or Windows takes it for older than any.
UPDATE `File` SET `Version` = '@NUMBER@', `Language` = '1033' WHERE `File` = 'AgentExe'
DELETE FROM `MsiFileHash` WHERE `File_` = 'AgentExe'

-- Lines of agent.toml. Attributes: 0x10 stays when the package goes, 0x100 is 64-bit.
UPDATE `Component` SET `Condition` = 'REA_ENDPOINT', `Attributes` = 272 WHERE `Component` = 'Endpoint'
UPDATE `Component` SET `Condition` = 'REA_TOKEN', `Attributes` = 272 WHERE `Component` = 'Identity'
CREATE TABLE `IniFile` (`IniFile` CHAR(72) NOT NULL, `FileName` CHAR(255) NOT NULL LOCALIZABLE, `DirProperty` CHAR(72), `Section` CHAR(96) NOT NULL LOCALIZABLE, `Key` CHAR(128) NOT NULL LOCALIZABLE, `Value` CHAR(255) NOT NULL LOCALIZABLE, `Action` INT NOT NULL, `Component_` CHAR(72) NOT NULL PRIMARY KEY `IniFile`)
INSERT INTO `IniFile` (`IniFile`, `FileName`, `DirProperty`, `Section`, `Key`, `Value`, `Action`, `Component_`) VALUES ('Enabled', 'agent.toml', 'DATADIR', 'networking', 'enabled', 'true', 0, 'Endpoint')
INSERT INTO `IniFile` (`IniFile`, `FileName`, `DirProperty`, `Section`, `Key`, `Value`, `Action`, `Component_`) VALUES ('Endpoint', 'agent.toml', 'DATADIR', 'networking', 'endpoint', '"[REA_ENDPOINT]"', 0, 'Endpoint')
INSERT INTO `IniFile` (`IniFile`, `FileName`, `DirProperty`, `Section`, `Key`, `Value`, `Action`, `Component_`) VALUES ('Authority', 'agent.toml', 'DATADIR', 'tls', 'ca_file', '"identity/ca.crt"', 1, 'Identity')
INSERT INTO `IniFile` (`IniFile`, `FileName`, `DirProperty`, `Section`, `Key`, `Value`, `Action`, `Component_`) VALUES ('Cert', 'agent.toml', 'DATADIR', 'tls', 'client_cert', '"identity/agent.pem"', 1, 'Identity')
INSERT INTO `IniFile` (`IniFile`, `FileName`, `DirProperty`, `Section`, `Key`, `Value`, `Action`, `Component_`) VALUES ('Key', 'agent.toml', 'DATADIR', 'tls', 'client_key', '"identity/agent.pem"', 1, 'Identity')
INSERT INTO `IniFile` (`IniFile`, `FileName`, `DirProperty`, `Section`, `Key`, `Value`, `Action`, `Component_`) VALUES ('Renew', 'agent.toml', 'DATADIR', 'tls', 'renew', 'true', 1, 'Identity')
