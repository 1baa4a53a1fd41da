Feature: Accounts and sessions
  Everybody can register. Who has logged in stays so, on each device, until they log out or somebody has reason to end it.

  Scenario: A newcomer registers and is let in
    When Ada registers
    And Ada logs in
    Then Ada is logged in
    And Ada has the rights of a customer

  Scenario: An address is registered once, however it is written
    Given Ada is a customer
    When Ben registers with the address of Ada in capital letters
    Then Ben is told "The email address is already registered"

  Scenario: A password that many people use is refused
    When Ada registers with the password "password1234"
    Then Ada is told "A field is not valid"

  Scenario: A wrong password does not say whether there is such an account
    Given Ada is a customer
    When Ada logs in with a wrong password
    Then Ada is told "The password or the email address is wrong"
    When Ben logs in without an account
    Then Ben is told "The password or the email address is wrong"

  Scenario: Who guesses passwords has to wait
    Given Ada is a customer
    When Ada has logged in with a wrong password 5 times
    And Ada logs in
    Then Ada is told "Too many attempts; wait before the next"

  Scenario: Logging out ends the session at once
    Given Ada is a customer
    When Ada logs out
    Then Ada is not logged in any more

  Scenario: A new password ends the sessions on all other devices
    Given Ada is a customer
    And Ada is logged in on a phone also
    When Ada changes the password
    Then Ada is logged in
    And Ada is not logged in on the phone any more

  Scenario: A lost phone is logged out from another device
    Given Ada is a customer
    And Ada is logged in on a phone also
    When Ada ends the session on the phone
    Then Ada is logged in
    And Ada is not logged in on the phone any more

  Scenario: A session that was copied ends as soon as both use it
    Given Ada is a customer
    And Ada has renewed the session
    When a thief renews it with a copy of what Ada has used already
    Then Ada is not logged in any more
